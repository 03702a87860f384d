"""The faces of rackcast: command line, reports, web app. They show tables; they hold no physics and no prices."""
