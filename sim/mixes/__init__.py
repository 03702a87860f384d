"""Jobs made by recipe: fit a recipe to a history, or make years of jobs from one."""
