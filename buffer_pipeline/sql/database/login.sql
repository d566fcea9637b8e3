-- The login of the connection.
SELECT CAST(session_user AS text) AS login
