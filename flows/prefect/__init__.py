"""What concerns Prefect: tasks, artifacts, runners, schedules."""
