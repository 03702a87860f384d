"""Planning: many scenarios, one choice. Each question asked is a point, each answer a row that is kept."""
