WITH kept AS (
  INSERT INTO idempotency (id, fingerprint, status, headers, body, created_at, expires_at)
  VALUES ($6, $6, 202, '{}', $7, statement_timestamp(), statement_timestamp() + interval '24 hours')
), added AS (
  INSERT INTO job (id, kind, payload, request, state, created_at, run_at, due_at, max_attempts, timeout_seconds,
    requested_by_type, requested_by_id, requested_by_name, request_id, trigger, turn)
  VALUES ($1, 'discovery.scan', $3, $4, 'queued', statement_timestamp(), statement_timestamp(), statement_timestamp(), 5, 14400,
    'user', '01900000-0000-7000-8000-000000000000', 'admin', '01900000-0000-7000-8000-000000000001', 'api', 0)
  RETURNING id, created_at
), scanned AS (
  INSERT INTO scan (id, mode, subscriptions, created_at) SELECT id, 'full', '[]', created_at FROM added
)
INSERT INTO audit_outbox (id, at, type, actor_type, actor_id, actor_name, subject_type, subject_id, outcome, request_id, job_id, details)
SELECT $2, created_at, 'scan.requested', 'user', '01900000-0000-7000-8000-000000000000', 'admin', 'scan', id::text, 'success',
  '01900000-0000-7000-8000-000000000001', id, $5 FROM added
