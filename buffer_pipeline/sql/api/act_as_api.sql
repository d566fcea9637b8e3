-- Takes the role of the API again, which may record the answer.
SELECT set_config('role', 'buffer_api', TRUE) AS database_role
