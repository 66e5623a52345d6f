-- The statements that the service sends on postgresql, operation by operation, in their order.
-- `make sql` writes this file, and a test holds it to the code. A statement that is sent again is only named.
-- sqlglot has formatted them, and writes all casts in one form. A name in brackets or a ? stands for a parameter.


-- PUT /api/catalog/modules/{moduleId}, a new module
-- =================================================

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '100', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.publishing._owners: Find the modules of those contents that are in the catalog already.
SELECT
  contents.id,
  contents.module_id,
  contents.retired
FROM contents
WHERE
  contents.id IN (
    SELECT
      ids.id
    FROM (
      SELECT
        (
          ids_json.value ->> 0
        ) COLLATE "C" AS id
      FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(ids)s AS VARCHAR) AS JSONB)) AS ids_json
    ) AS ids
  );

-- store.locks._lock_table
LOCK TABLE modules IN ROW EXCLUSIVE MODE;

-- store.locks._hold
SELECT
  PG_ADVISORY_XACT_LOCK(
    HASHTEXTEXTENDED(CAST(%(hashtextextended_1)s AS VARCHAR), CAST(%(hashtextextended_2)s AS INT))
  ) AS pg_advisory_xact_lock_1;

-- store.publishing.published: Read modules as they were last published; ids without a module are left out.
SELECT
  module_instructors.module_id,
  module_instructors.user_id
FROM module_instructors
WHERE
  module_instructors.module_id IN (CAST(%(module_id_1_1)s AS VARCHAR))
ORDER BY
  module_instructors.ordinal;

-- store.publishing.published (2): Read modules as they were last published; ids without a module are left out.
SELECT
  contents.module_id,
  contents.id,
  contents.title,
  contents.type,
  contents.section,
  contents.weight,
  contents.completion_threshold,
  contents.passing_score
FROM contents
WHERE
  contents.module_id IN (CAST(%(module_id_1_1)s AS VARCHAR))
  AND NOT contents.retired
ORDER BY
  contents.ordinal;

-- store.publishing.published (3): Read modules as they were last published; ids without a module are left out.
SELECT
  modules.id,
  modules.title
FROM modules
WHERE
  modules.id IN (CAST(%(id_1_1)s AS VARCHAR))
ORDER BY
  modules.id;

-- store.publishing._owners, as above

-- store.publishing._counted_weights
SELECT
  contents.id,
  contents.weight
FROM contents
WHERE
  contents.module_id = CAST(%(module_id_1)s AS VARCHAR)
  AND NOT contents.retired
  AND contents.weight > CAST(%(weight_1)s AS SMALLINT);

-- store.publishing._rules
SELECT
  contents.id,
  contents.completion_threshold,
  contents.passing_score
FROM contents
WHERE
  contents.module_id = CAST(%(module_id_1)s AS VARCHAR);

-- store.publishing._store: Store a module with its instructors, and retire its contents; return whether the module is
-- new.
UPDATE modules SET title = CAST(%(title)s AS VARCHAR)
WHERE
  modules.id = CAST(%(id_1)s AS VARCHAR);

-- store.publishing._store (2): Store a module with its instructors, and retire its contents; return whether the
-- module is new.
INSERT INTO modules (
  id,
  title,
  total_weight,
  total_contents
)
VALUES
  (
    CAST(%(id)s AS VARCHAR),
    CAST(%(title)s AS VARCHAR),
    CAST(%(total_weight)s AS BIGINT),
    CAST(%(total_contents)s AS BIGINT)
  );

-- store.publishing._store (3): Store a module with its instructors, and retire its contents; return whether the
-- module is new.
UPDATE contents SET retired = %(retired)s
WHERE
  contents.module_id = CAST(%(module_id_1)s AS VARCHAR);

-- store.publishing._store (4): Store a module with its instructors, and retire its contents; return whether the
-- module is new.
DELETE FROM module_instructors
WHERE
  module_instructors.module_id = CAST(%(module_id_1)s AS VARCHAR);

-- store.publishing._store (5): Store a module with its instructors, and retire its contents; return whether the
-- module is new.
INSERT INTO module_instructors (
  module_id,
  user_id,
  ordinal
)
VALUES
  (
    CAST(%(module_id)s AS VARCHAR),
    CAST(%(user_id)s AS VARCHAR),
    CAST(%(ordinal)s AS BIGINT)
  );

-- statements.write_changes: Write changes in the journal, in the order of their places.
INSERT INTO changes (
  settled_after,
  type,
  time,
  recorded_at,
  user_id,
  module_id,
  content_id,
  by_sub,
  by_role,
  data,
  is_history
)
SELECT
  GREATEST(
    CAST(CAST(PG_SNAPSHOT_XMAX(PG_CURRENT_SNAPSHOT()) AS TEXT) AS BIGINT) - 1,
    CAST(CAST(PG_CURRENT_XACT_ID() AS TEXT) AS BIGINT)
  ) + COALESCE((
    SELECT
      MAX(order_offset)
    FROM arrivals
  ), 0) AS anon_1,
  changes.type,
  changes.time,
  changes.recorded_at,
  changes.user_id,
  changes.module_id,
  changes.content_id,
  changes.by_sub,
  changes.by_role,
  changes.data,
  changes.is_history
FROM (
  SELECT
    changes_json.value ->> 0 AS type,
    CAST(changes_json.value ->> 1 AS TIMESTAMPTZ) AS time,
    CAST(changes_json.value ->> 2 AS TIMESTAMPTZ) AS recorded_at,
    (
      changes_json.value ->> 3
    ) COLLATE "C" AS user_id,
    (
      changes_json.value ->> 4
    ) COLLATE "C" AS module_id,
    (
      changes_json.value ->> 5
    ) COLLATE "C" AS content_id,
    (
      changes_json.value ->> 6
    ) COLLATE "C" AS by_sub,
    changes_json.value ->> 7 AS by_role,
    changes_json.value ->> 8 AS data,
    CAST(changes_json.value ->> 9 AS BOOLEAN) AS is_history,
    CAST(changes_json.value ->> 10 AS BIGINT) AS place
  FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(changes)s AS VARCHAR) AS JSONB)) AS changes_json
) AS changes
ORDER BY
  changes.place;

-- statements.store_contents: Store contents, and return the ids of those that belong to the module; others stay as
-- they are.
INSERT INTO contents (
  id,
  module_id,
  ordinal,
  title,
  type,
  section,
  weight,
  completion_threshold,
  passing_score,
  retired
)
SELECT
  contents.id,
  contents.module_id,
  contents.ordinal,
  contents.title,
  contents.type,
  contents.section,
  contents.weight,
  contents.completion_threshold,
  contents.passing_score,
  contents.retired
FROM (
  SELECT
    (
      contents_json.value ->> 0
    ) COLLATE "C" AS id,
    (
      contents_json.value ->> 1
    ) COLLATE "C" AS module_id,
    CAST(contents_json.value ->> 2 AS BIGINT) AS ordinal,
    contents_json.value ->> 3 AS title,
    contents_json.value ->> 4 AS type,
    contents_json.value ->> 5 AS section,
    CAST(contents_json.value ->> 6 AS SMALLINT) AS weight,
    CAST(contents_json.value ->> 7 AS SMALLINT) AS completion_threshold,
    CAST(contents_json.value ->> 8 AS SMALLINT) AS passing_score,
    CAST(contents_json.value ->> 9 AS BOOLEAN) AS retired
  FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(contents)s AS VARCHAR) AS JSONB)) AS contents_json
) AS contents
WHERE
  TRUE
ORDER BY
  contents.id ON CONFLICT(id) DO UPDATE SET ordinal = excluded.ordinal, title = excluded.title, type = excluded.type, section = excluded.section, weight = excluded.weight, completion_threshold = excluded.completion_threshold, passing_score = excluded.passing_score, retired = excluded.retired
WHERE
  contents.module_id = excluded.module_id
RETURNING contents.id;

-- store.recount.denominators: Recount the module's current contents and their weights.
UPDATE modules SET total_weight = denominators.total_weight, total_contents = denominators.total_contents
FROM (
  SELECT
    modules.id AS module_id,
    CAST(COALESCE(SUM(contents.weight), CAST(%(coalesce_1)s AS INT)) AS BIGINT) AS total_weight,
    COUNT(contents.id) AS total_contents
  FROM modules
  LEFT OUTER JOIN contents
    ON contents.module_id = modules.id
    AND NOT contents.retired
    AND contents.weight > CAST(%(weight_1)s AS SMALLINT)
  WHERE
    modules.id = CAST(%(id_1)s AS VARCHAR)
  GROUP BY
    modules.id
) AS denominators
WHERE
  modules.id = denominators.module_id;

COMMIT;


-- POST /api/progress, with an Idempotency-Key
-- ===========================================

BEGIN ISOLATION LEVEL READ COMMITTED;

-- statements.lock_request_keys: Lock request keys in one order (PostgreSQL).
SELECT
  PG_ADVISORY_XACT_LOCK(ordered.caller_id, ordered.key) AS pg_advisory_xact_lock_1
FROM (
  SELECT
    HASHTEXT(request_keys.caller_id) AS caller_id,
    HASHTEXT(request_keys.key) AS key
  FROM (
    SELECT
      (
        request_keys_json.value ->> 0
      ) COLLATE "C" AS caller_id,
      request_keys_json.value ->> 1 AS key
    FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(request_keys)s AS VARCHAR) AS JSONB)) AS request_keys_json
  ) AS request_keys
  ORDER BY
    1,
    2
) AS ordered;

-- statements.find_answers: Find the answers that are stored under request keys.
SELECT
  stored_answer.caller_id,
  stored_answer.key,
  stored_answer.fingerprint,
  stored_answer.status,
  stored_answer.body,
  stored_answer.learner_id,
  stored_answer.stored_at
FROM (
  SELECT
    (
      request_keys_json.value ->> 0
    ) COLLATE "C" AS caller_id,
    request_keys_json.value ->> 1 AS key
  FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(request_keys)s AS VARCHAR) AS JSONB)) AS request_keys_json
) AS request_keys
JOIN LATERAL (
  SELECT
    stored_answers.caller_id AS caller_id,
    stored_answers.key AS key,
    stored_answers.fingerprint AS fingerprint,
    stored_answers.status AS status,
    stored_answers.body AS body,
    stored_answers.learner_id AS learner_id,
    stored_answers.stored_at AS stored_at
  FROM stored_answers
  WHERE
    stored_answers.caller_id = request_keys.caller_id
    AND stored_answers.key = request_keys.key
  LIMIT ALL
  OFFSET 0
) AS stored_answer
  ON TRUE;

-- statements.lock_modules_of_contents: Share the locks of the modules to which the contents of the keys belong.
SELECT
  locked.module_id
FROM (
  SELECT
    counted.module_id AS module_id,
    CASE
      WHEN (
        counted.number <= 50
      )
      THEN CAST(PG_ADVISORY_XACT_LOCK_SHARED(HASHTEXTEXTENDED(counted.module_id, 0)) AS VARCHAR)
    END AS lock
  FROM (
    SELECT
      ordered.module_id AS module_id,
      COUNT(*) OVER () AS number
    FROM (
      SELECT DISTINCT
        modules.module_id COLLATE "C" AS module_id
      FROM (
        SELECT
          content.module_id AS module_id
        FROM (
          SELECT
            (
              keys_json.value ->> 0
            ) COLLATE "C" AS user_id,
            (
              keys_json.value ->> 1
            ) COLLATE "C" AS content_id,
            CAST(keys_json.value ->> 2 AS DATE) AS day,
            CAST(keys_json.value ->> 3 AS TIMESTAMPTZ) AS enrolled_at,
            CAST(keys_json.value ->> 4 AS BOOLEAN) AS by_instructor,
            CAST(keys_json.value ->> 5 AS BIGINT) AS place
          FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(keys)s AS VARCHAR) AS JSONB)) AS keys_json
        ) AS keys
        JOIN LATERAL (
          SELECT
            contents.module_id AS module_id
          FROM contents
          WHERE
            contents.id = keys.content_id
          LIMIT ALL
          OFFSET 0
        ) AS content
          ON TRUE
      ) AS modules
      ORDER BY
        module_id
    ) AS ordered
  ) AS counted
) AS locked;

-- statements.lock_enrollments_of_contents: Lock the enrollments of the keys, make those that are missing, and return
-- the keys of the new enrollments.
INSERT INTO enrollments (
  user_id,
  module_id,
  status,
  enrolled_at,
  enrolled_by_update,
  counted,
  weighted_sum,
  completed_contents,
  time_spent_seconds
)
SELECT
  learners.user_id AS user_id,
  learners.module_id AS module_id,
  CAST(%(param_1)s AS VARCHAR) AS status,
  learners.enrolled_at AS enrolled_at,
  %(param_2)s AS enrolled_by_update,
  NOT (
    learners.by_instructor
    AND (
      EXISTS(
        SELECT
          *
        FROM module_instructors
        WHERE
          module_instructors.module_id = learners.module_id
          AND module_instructors.user_id = learners.user_id
      )
    )
  ) AS counted,
  CAST(%(param_3)s AS INT) AS weighted_sum,
  CAST(%(param_4)s AS INT) AS completed_contents,
  CAST(%(param_5)s AS INT) AS time_spent_seconds
FROM (
  SELECT
    updates.user_id AS user_id,
    updates.module_id AS module_id,
    updates.enrolled_at AS enrolled_at,
    updates.by_instructor AS by_instructor,
    updates.nth AS nth
  FROM (
    SELECT
      keys.user_id AS user_id,
      content.module_id AS module_id,
      keys.enrolled_at AS enrolled_at,
      keys.by_instructor AS by_instructor,
      ROW_NUMBER() OVER (PARTITION BY keys.user_id, content.module_id ORDER BY keys.place) AS nth
    FROM (
      SELECT
        (
          keys_json.value ->> 0
        ) COLLATE "C" AS user_id,
        (
          keys_json.value ->> 1
        ) COLLATE "C" AS content_id,
        CAST(keys_json.value ->> 2 AS DATE) AS day,
        CAST(keys_json.value ->> 3 AS TIMESTAMPTZ) AS enrolled_at,
        CAST(keys_json.value ->> 4 AS BOOLEAN) AS by_instructor,
        CAST(keys_json.value ->> 5 AS BIGINT) AS place
      FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(keys)s AS VARCHAR) AS JSONB)) AS keys_json
    ) AS keys
    JOIN LATERAL (
      SELECT
        contents.module_id AS module_id
      FROM contents
      WHERE
        contents.id = keys.content_id
      LIMIT ALL
      OFFSET 0
    ) AS content
      ON TRUE
  ) AS updates
  WHERE
    updates.nth = 1
) AS learners
WHERE
  TRUE
ORDER BY
  learners.user_id,
  learners.module_id ON CONFLICT(user_id, module_id) DO UPDATE SET status = enrollments.status
WHERE
  FALSE
RETURNING enrollments.user_id, enrollments.module_id;

-- statements.read: Read everything that updates of the keys change or depend on; a value that is not stored is null.
SELECT
  keys.user_id,
  keys.content_id,
  content.module_id,
  content.weight,
  content.completion_threshold,
  content.passing_score,
  content.retired,
  module.total_weight,
  module.total_contents,
  enrollment.user_id AS user_id_1,
  enrollment.module_id AS module_id_1,
  enrollment.status,
  enrollment.enrolled_at,
  enrollment.weighted_sum,
  enrollment.completed_contents,
  enrollment.time_spent_seconds,
  enrollment.completed_at,
  enrollment.last_activity_at,
  enrollment.last_content_id,
  enrollment.enrolled_by_update,
  enrollment.counted,
  enrollment.last_is_excused,
  enrollment.credited,
  progress_record.id,
  progress_record.user_id AS user_id_2,
  progress_record.module_id AS module_id_2,
  progress_record.content_id AS content_id_1,
  progress_record.started_at,
  progress_record.last_activity_at AS last_activity_at_1,
  progress_record.furthest_percentage,
  progress_record.time_spent_seconds AS time_spent_seconds_1,
  progress_record.score,
  progress_record.max_score,
  progress_record.position,
  progress_record.position_at,
  progress_record.completed_at AS completed_at_1,
  progress_record.reached_at,
  progress_record.passed_at,
  progress_record.excused_at,
  activity_day.user_id AS user_id_3,
  activity_day.module_id AS module_id_3,
  activity_day.day,
  activity_day.time_spent_seconds AS time_spent_seconds_2
FROM (
  SELECT
    (
      keys_json.value ->> 0
    ) COLLATE "C" AS user_id,
    (
      keys_json.value ->> 1
    ) COLLATE "C" AS content_id,
    CAST(keys_json.value ->> 2 AS DATE) AS day,
    CAST(keys_json.value ->> 3 AS TIMESTAMPTZ) AS enrolled_at,
    CAST(keys_json.value ->> 4 AS BOOLEAN) AS by_instructor,
    CAST(keys_json.value ->> 5 AS BIGINT) AS place
  FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(keys)s AS VARCHAR) AS JSONB)) AS keys_json
) AS keys
JOIN LATERAL (
  SELECT
    contents.module_id AS module_id,
    contents.weight AS weight,
    contents.completion_threshold AS completion_threshold,
    contents.passing_score AS passing_score,
    contents.retired AS retired
  FROM contents
  WHERE
    contents.id = keys.content_id
  LIMIT ALL
  OFFSET 0
) AS content
  ON TRUE
JOIN LATERAL (
  SELECT
    modules.total_weight AS total_weight,
    modules.total_contents AS total_contents
  FROM modules
  WHERE
    modules.id = content.module_id
  LIMIT ALL
  OFFSET 0
) AS module
  ON TRUE
LEFT OUTER JOIN LATERAL (
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM enrollments
  WHERE
    enrollments.user_id = keys.user_id AND enrollments.module_id = content.module_id
  LIMIT ALL
  OFFSET 0
) AS enrollment
  ON TRUE
LEFT OUTER JOIN LATERAL (
  SELECT
    progress_records.id AS id,
    progress_records.user_id AS user_id,
    progress_records.module_id AS module_id,
    progress_records.content_id AS content_id,
    progress_records.started_at AS started_at,
    progress_records.last_activity_at AS last_activity_at,
    progress_records.furthest_percentage AS furthest_percentage,
    progress_records.time_spent_seconds AS time_spent_seconds,
    progress_records.score AS score,
    progress_records.max_score AS max_score,
    progress_records.position AS position,
    progress_records.position_at AS position_at,
    progress_records.completed_at AS completed_at,
    progress_records.reached_at AS reached_at,
    progress_records.passed_at AS passed_at,
    progress_records.excused_at AS excused_at
  FROM progress_records
  WHERE
    progress_records.user_id = keys.user_id
    AND progress_records.content_id = keys.content_id
  LIMIT ALL
  OFFSET 0
) AS progress_record
  ON TRUE
LEFT OUTER JOIN LATERAL (
  SELECT
    activity_days.user_id AS user_id,
    activity_days.module_id AS module_id,
    activity_days.day AS day,
    activity_days.time_spent_seconds AS time_spent_seconds
  FROM activity_days
  WHERE
    activity_days.day = keys.day
    AND activity_days.user_id = keys.user_id
    AND activity_days.module_id = content.module_id
  LIMIT ALL
  OFFSET 0
) AS activity_day
  ON TRUE;

-- statements.share_enrolling: Share the locks of groups of learners (PostgreSQL).
SELECT
  PG_ADVISORY_XACT_LOCK_SHARED(HASHTEXTEXTENDED(ordered.id, 2)) AS pg_advisory_xact_lock_shared_1
FROM (
  SELECT
    ids.id AS id
  FROM (
    SELECT
      (
        ids_json.value ->> 0
      ) COLLATE "C" AS id
    FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(ids)s AS VARCHAR) AS JSONB)) AS ids_json
  ) AS ids
  ORDER BY
    ids.id
) AS ordered;

-- statements.store: Store records, enrollments, days and tallies: in one statement on PostgreSQL, in four on SQLite.
WITH stored_records AS (
  INSERT INTO progress_records (
    id,
    user_id,
    module_id,
    content_id,
    started_at,
    last_activity_at,
    furthest_percentage,
    time_spent_seconds,
    score,
    max_score,
    position,
    position_at,
    completed_at,
    reached_at,
    passed_at,
    excused_at,
    progress_percentage
  )
  SELECT
    records.id AS id,
    records.user_id AS user_id,
    records.module_id AS module_id,
    records.content_id AS content_id,
    records.started_at AS started_at,
    records.last_activity_at AS last_activity_at,
    records.furthest_percentage AS furthest_percentage,
    records.time_spent_seconds AS time_spent_seconds,
    records.score AS score,
    records.max_score AS max_score,
    records.position AS position,
    records.position_at AS position_at,
    records.completed_at AS completed_at,
    records.reached_at AS reached_at,
    records.passed_at AS passed_at,
    records.excused_at AS excused_at,
    records.progress_percentage AS progress_percentage
  FROM (
    SELECT
      CAST(records_json.value ->> 0 AS UUID) AS id,
      (
        records_json.value ->> 1
      ) COLLATE "C" AS user_id,
      (
        records_json.value ->> 2
      ) COLLATE "C" AS module_id,
      (
        records_json.value ->> 3
      ) COLLATE "C" AS content_id,
      CAST(records_json.value ->> 4 AS TIMESTAMPTZ) AS started_at,
      CAST(records_json.value ->> 5 AS TIMESTAMPTZ) AS last_activity_at,
      CAST(records_json.value ->> 6 AS SMALLINT) AS furthest_percentage,
      CAST(records_json.value ->> 7 AS BIGINT) AS time_spent_seconds,
      CAST(records_json.value ->> 8 AS BIGINT) AS score,
      CAST(records_json.value ->> 9 AS BIGINT) AS max_score,
      records_json.value ->> 10 AS position,
      CAST(records_json.value ->> 11 AS TIMESTAMPTZ) AS position_at,
      CAST(records_json.value ->> 12 AS TIMESTAMPTZ) AS completed_at,
      CAST(records_json.value ->> 13 AS TIMESTAMPTZ) AS reached_at,
      CAST(records_json.value ->> 14 AS TIMESTAMPTZ) AS passed_at,
      CAST(records_json.value ->> 15 AS TIMESTAMPTZ) AS excused_at,
      CAST(records_json.value ->> 16 AS SMALLINT) AS progress_percentage
    FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(records)s AS VARCHAR) AS JSONB)) AS records_json
  ) AS records
  WHERE
    TRUE
  ORDER BY
    records.user_id,
    records.content_id ON CONFLICT(user_id, content_id) DO UPDATE SET module_id = excluded.module_id, progress_percentage = excluded.progress_percentage, furthest_percentage = excluded.furthest_percentage, time_spent_seconds = excluded.time_spent_seconds, score = excluded.score, max_score = excluded.max_score, position = excluded.position, position_at = excluded.position_at, started_at = excluded.started_at, completed_at = excluded.completed_at, last_activity_at = excluded.last_activity_at, reached_at = excluded.reached_at, passed_at = excluded.passed_at, excused_at = excluded.excused_at
  WHERE
    TRUE
), stored_enrollments AS (
  INSERT INTO enrollments (
    user_id,
    module_id,
    status,
    enrolled_at,
    weighted_sum,
    completed_contents,
    time_spent_seconds,
    completed_at,
    last_activity_at,
    last_content_id,
    enrolled_by_update,
    counted,
    last_is_excused,
    credited
  )
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM (
    SELECT
      (
        enrollments_json.value ->> 0
      ) COLLATE "C" AS user_id,
      (
        enrollments_json.value ->> 1
      ) COLLATE "C" AS module_id,
      enrollments_json.value ->> 2 AS status,
      CAST(enrollments_json.value ->> 3 AS TIMESTAMPTZ) AS enrolled_at,
      CAST(enrollments_json.value ->> 4 AS BIGINT) AS weighted_sum,
      CAST(enrollments_json.value ->> 5 AS BIGINT) AS completed_contents,
      CAST(enrollments_json.value ->> 6 AS BIGINT) AS time_spent_seconds,
      CAST(enrollments_json.value ->> 7 AS TIMESTAMPTZ) AS completed_at,
      CAST(enrollments_json.value ->> 8 AS TIMESTAMPTZ) AS last_activity_at,
      (
        enrollments_json.value ->> 9
      ) COLLATE "C" AS last_content_id,
      CAST(enrollments_json.value ->> 10 AS BOOLEAN) AS enrolled_by_update,
      CAST(enrollments_json.value ->> 11 AS BOOLEAN) AS counted,
      CAST(enrollments_json.value ->> 12 AS BOOLEAN) AS last_is_excused,
      CAST(enrollments_json.value ->> 13 AS BOOLEAN) AS credited
    FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(enrollments)s AS VARCHAR) AS JSONB)) AS enrollments_json
  ) AS enrollments
  WHERE
    TRUE
  ORDER BY
    enrollments.user_id,
    enrollments.module_id ON CONFLICT(user_id, module_id) DO UPDATE SET status = excluded.status, weighted_sum = excluded.weighted_sum, completed_contents = excluded.completed_contents, time_spent_seconds = excluded.time_spent_seconds, enrolled_at = excluded.enrolled_at, completed_at = excluded.completed_at, last_activity_at = excluded.last_activity_at, last_content_id = excluded.last_content_id, enrolled_by_update = excluded.enrolled_by_update, counted = excluded.counted, last_is_excused = excluded.last_is_excused, credited = excluded.credited
  WHERE
    TRUE
), stored_days AS (
  INSERT INTO activity_days (
    user_id,
    module_id,
    day,
    time_spent_seconds
  )
  SELECT
    days.user_id AS user_id,
    days.module_id AS module_id,
    days.day AS day,
    days.time_spent_seconds AS time_spent_seconds
  FROM (
    SELECT
      (
        days_json.value ->> 0
      ) COLLATE "C" AS user_id,
      (
        days_json.value ->> 1
      ) COLLATE "C" AS module_id,
      CAST(days_json.value ->> 2 AS DATE) AS day,
      CAST(days_json.value ->> 3 AS BIGINT) AS time_spent_seconds
    FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(days)s AS VARCHAR) AS JSONB)) AS days_json
  ) AS days
  WHERE
    TRUE
  ORDER BY
    days.user_id,
    days.module_id,
    days.day ON CONFLICT(user_id, module_id, day) DO UPDATE SET time_spent_seconds = excluded.time_spent_seconds
  WHERE
    TRUE
), stored_tallies AS (
  INSERT INTO tallies (
    module_id,
    kind,
    item,
    part,
    learners,
    started,
    completed,
    enrollments_completed,
    time_spent_seconds,
    weighted_sum,
    scored,
    score_hundredths
  )
  SELECT
    tallies.module_id AS module_id,
    tallies.kind AS kind,
    tallies.item AS item,
    tallies.part AS part,
    tallies.learners AS learners,
    tallies.started AS started,
    tallies.completed AS completed,
    tallies.enrollments_completed AS enrollments_completed,
    tallies.time_spent_seconds AS time_spent_seconds,
    tallies.weighted_sum AS weighted_sum,
    tallies.scored AS scored,
    tallies.score_hundredths AS score_hundredths
  FROM (
    SELECT
      (
        tallies_json.value ->> 0
      ) COLLATE "C" AS module_id,
      tallies_json.value ->> 1 AS kind,
      (
        tallies_json.value ->> 2
      ) COLLATE "C" AS item,
      CAST(tallies_json.value ->> 3 AS SMALLINT) AS part,
      CAST(tallies_json.value ->> 4 AS BIGINT) AS learners,
      CAST(tallies_json.value ->> 5 AS BIGINT) AS started,
      CAST(tallies_json.value ->> 6 AS BIGINT) AS completed,
      CAST(tallies_json.value ->> 7 AS BIGINT) AS enrollments_completed,
      CAST(tallies_json.value ->> 8 AS BIGINT) AS time_spent_seconds,
      CAST(tallies_json.value ->> 9 AS BIGINT) AS weighted_sum,
      CAST(tallies_json.value ->> 10 AS BIGINT) AS scored,
      CAST(tallies_json.value ->> 11 AS BIGINT) AS score_hundredths
    FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(tallies)s AS VARCHAR) AS JSONB)) AS tallies_json
  ) AS tallies
  WHERE
    TRUE
  ORDER BY
    tallies.module_id,
    tallies.kind,
    tallies.item ON CONFLICT(module_id, kind, item, part) DO UPDATE SET learners = (
    tallies.learners + excluded.learners
  ), started = (
    tallies.started + excluded.started
  ), completed = (
    tallies.completed + excluded.completed
  ), enrollments_completed = (
    tallies.enrollments_completed + excluded.enrollments_completed
  ), time_spent_seconds = (
    tallies.time_spent_seconds + excluded.time_spent_seconds
  ), weighted_sum = (
    tallies.weighted_sum + excluded.weighted_sum
  ), scored = (
    tallies.scored + excluded.scored
  ), score_hundredths = (
    tallies.score_hundredths + excluded.score_hundredths
  )
)
SELECT
  CAST(%(param_1)s AS INT) AS anon_1;

-- statements.write_changes, as above

-- statements.keep_answers: Store answers under their request keys.
INSERT INTO stored_answers (
  caller_id,
  key,
  fingerprint,
  status,
  learner_id,
  stored_at,
  body
)
SELECT
  answers.caller_id,
  answers.key,
  answers.fingerprint,
  answers.status,
  answers.learner_id,
  answers.stored_at,
  CONVERT_TO(answers.body, CAST(%(convert_to_2)s AS VARCHAR)) AS convert_to_1
FROM (
  SELECT
    (
      answers_json.value ->> 0
    ) COLLATE "C" AS caller_id,
    answers_json.value ->> 1 AS key,
    answers_json.value ->> 2 AS fingerprint,
    CAST(answers_json.value ->> 3 AS SMALLINT) AS status,
    (
      answers_json.value ->> 4
    ) COLLATE "C" AS learner_id,
    CAST(answers_json.value ->> 5 AS TIMESTAMPTZ) AS stored_at,
    answers_json.value ->> 6 AS body
  FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(answers)s AS VARCHAR) AS JSONB)) AS answers_json
) AS answers;

COMMIT;


-- POST /api/progress, the same again
-- ==================================

BEGIN ISOLATION LEVEL READ COMMITTED;

-- statements.lock_request_keys, as above

-- statements.find_answers, as above

COMMIT;


-- PUT /api/catalog/modules/{moduleId}, a content retired
-- ======================================================

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '100', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.publishing._owners, as above

-- store.locks._lock_table, as above

-- store.locks._hold, as above

-- store.publishing.published, as above

-- store.publishing.published (2), as above

-- store.publishing.published (3), as above

-- store.publishing._owners, as above

-- store.publishing._counted_weights, as above

-- store.publishing._rules, as above

-- store.publishing._store, as above

-- store.publishing._store (3), as above

-- store.publishing._store (4), as above

-- store.publishing._store (5), as above

-- statements.write_changes, as above

-- statements.store_contents, as above

-- store.recount.denominators, as above

-- store.publishing._counted_weights, as above

-- store.publishing._rules, as above

-- store.recount.reweigh: Apply new weights of a module's contents to its enrollments, and complete the enrollments
-- that are complete.
UPDATE enrollments SET weighted_sum = (
  enrollments.weighted_sum + gained.weighted_sum
), completed_contents = (
  enrollments.completed_contents + gained.completed_contents
)
FROM (
  SELECT
    progress_record.user_id AS user_id,
    CAST(COALESCE(
      SUM(weights.weight * progress_record.progress_percentage),
      CAST(%(coalesce_1)s AS INT)
    ) AS BIGINT) AS weighted_sum,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            progress_record.completed_at IS NOT NULL
            OR progress_record.excused_at IS NOT NULL
          )
          THEN weights.contents
          ELSE CAST(%(param_1)s AS INT)
        END
      ),
      CAST(%(coalesce_2)s AS INT)
    ) AS BIGINT) AS completed_contents
  FROM (
    SELECT
      (
        weights_json.value ->> 0
      ) COLLATE "C" AS id,
      CAST(weights_json.value ->> 1 AS BIGINT) AS weight,
      CAST(weights_json.value ->> 2 AS BIGINT) AS contents
    FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(weights)s AS VARCHAR) AS JSONB)) AS weights_json
  ) AS weights
  JOIN LATERAL (
    SELECT
      progress_records.user_id AS user_id,
      progress_records.progress_percentage AS progress_percentage,
      progress_records.completed_at AS completed_at,
      progress_records.excused_at AS excused_at
    FROM progress_records
    WHERE
      progress_records.module_id = CAST(%(module_id_1)s AS VARCHAR)
      AND progress_records.content_id = weights.id
    LIMIT ALL
    OFFSET 0
  ) AS progress_record
    ON TRUE
  GROUP BY
    progress_record.user_id
) AS gained
WHERE
  enrollments.module_id = CAST(%(module_id_2)s AS VARCHAR)
  AND enrollments.user_id = gained.user_id
  AND (
    gained.weighted_sum <> CAST(%(weighted_sum_1)s AS BIGINT)
    OR gained.completed_contents <> CAST(%(completed_contents_1)s AS BIGINT)
  );

-- store.recount._complete: Complete the enrollments that are complete, and return how many of them count in
-- statistics.
SELECT
  COUNT(*) AS count_1
FROM enrollments
WHERE
  enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
  AND (
    EXISTS(
      SELECT
        modules.id
      FROM modules
      WHERE
        modules.id = CAST(%(id_1)s AS VARCHAR)
        AND enrollments.status IN (CAST(%(status_1_1)s AS VARCHAR), CAST(%(status_1_2)s AS VARCHAR))
        AND modules.total_contents > CAST(%(total_contents_1)s AS BIGINT)
        AND enrollments.completed_contents = modules.total_contents
    )
  )
  AND enrollments.counted;

-- store.journal.write_selected: Write a change of a kind for each of the enrollments or records that the conditions
-- select, as of now.
INSERT INTO changes (
  settled_after,
  type,
  time,
  recorded_at,
  user_id,
  module_id,
  content_id,
  by_sub,
  by_role,
  data,
  is_history
)
SELECT
  GREATEST(
    CAST(CAST(PG_SNAPSHOT_XMAX(PG_CURRENT_SNAPSHOT()) AS TEXT) AS BIGINT) - 1,
    CAST(CAST(PG_CURRENT_XACT_ID() AS TEXT) AS BIGINT)
  ) + COALESCE((
    SELECT
      MAX(order_offset)
    FROM arrivals
  ), 0) AS settled_after,
  CAST(%(param_1)s AS VARCHAR) AS type,
  CAST(%(param_2)s AS TIMESTAMPTZ) AS time,
  CAST(%(param_3)s AS TIMESTAMPTZ) AS recorded_at,
  enrollments.user_id AS user_id,
  enrollments.module_id AS module_id,
  NULL AS content_id,
  CAST(%(param_4)s AS VARCHAR) AS by_sub,
  CAST(%(param_5)s AS VARCHAR) AS by_role,
  CAST(JSON_BUILD_OBJECT('progressPercentage', 100.0) AS TEXT) AS data,
  TRUE AS is_history
FROM enrollments
WHERE
  enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
  AND (
    EXISTS(
      SELECT
        modules.id
      FROM modules
      WHERE
        modules.id = CAST(%(id_1)s AS VARCHAR)
        AND enrollments.status IN (CAST(%(status_1_1)s AS VARCHAR), CAST(%(status_1_2)s AS VARCHAR))
        AND modules.total_contents > CAST(%(total_contents_1)s AS BIGINT)
        AND enrollments.completed_contents = modules.total_contents
    )
  )
ORDER BY
  user_id,
  content_id;

-- store.recount._complete (2): Complete the enrollments that are complete, and return how many of them count in
-- statistics.
UPDATE enrollments SET status = CAST(%(status)s AS VARCHAR), completed_at = CAST(%(completed_at)s AS TIMESTAMPTZ)
WHERE
  enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
  AND (
    EXISTS(
      SELECT
        modules.id
      FROM modules
      WHERE
        modules.id = CAST(%(id_1)s AS VARCHAR)
        AND enrollments.status IN (CAST(%(status_1_1)s AS VARCHAR), CAST(%(status_1_2)s AS VARCHAR))
        AND modules.total_contents > CAST(%(total_contents_1)s AS BIGINT)
        AND enrollments.completed_contents = modules.total_contents
    )
  );

-- store.recount.tallies: Recount the tallies of a module and add the difference.
INSERT INTO tallies (
  module_id,
  kind,
  item,
  part,
  learners,
  started,
  completed,
  enrollments_completed,
  time_spent_seconds,
  weighted_sum,
  scored,
  score_hundredths
)
SELECT
  CAST(%(param_1)s AS VARCHAR) AS anon_1,
  compared.kind,
  compared.item,
  CAST(%(param_2)s AS INT) AS anon_2,
  compared.recounted_learners - compared.stored_learners AS anon_3,
  compared.recounted_started - compared.stored_started AS anon_4,
  compared.recounted_completed - compared.stored_completed AS anon_5,
  compared.recounted_enrollments_completed - compared.stored_enrollments_completed AS anon_6,
  compared.recounted_time_spent_seconds - compared.stored_time_spent_seconds AS anon_7,
  compared.recounted_weighted_sum - compared.stored_weighted_sum AS anon_8,
  compared.recounted_scored - compared.stored_scored AS anon_9,
  compared.recounted_score_hundredths - compared.stored_score_hundredths AS anon_10
FROM (
  SELECT
    parts.kind AS kind,
    parts.item AS item,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.learners
          ELSE CAST(%(param_3)s AS INT)
        END
      ),
      CAST(%(coalesce_1)s AS INT)
    ) AS BIGINT) AS stored_learners,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.started
          ELSE CAST(%(param_4)s AS INT)
        END
      ),
      CAST(%(coalesce_2)s AS INT)
    ) AS BIGINT) AS stored_started,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.completed
          ELSE CAST(%(param_5)s AS INT)
        END
      ),
      CAST(%(coalesce_3)s AS INT)
    ) AS BIGINT) AS stored_completed,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.enrollments_completed
          ELSE CAST(%(param_6)s AS INT)
        END
      ),
      CAST(%(coalesce_4)s AS INT)
    ) AS BIGINT) AS stored_enrollments_completed,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.time_spent_seconds
          ELSE CAST(%(param_7)s AS INT)
        END
      ),
      CAST(%(coalesce_5)s AS INT)
    ) AS BIGINT) AS stored_time_spent_seconds,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.weighted_sum
          ELSE CAST(%(param_8)s AS INT)
        END
      ),
      CAST(%(coalesce_6)s AS INT)
    ) AS BIGINT) AS stored_weighted_sum,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.scored
          ELSE CAST(%(param_9)s AS INT)
        END
      ),
      CAST(%(coalesce_7)s AS INT)
    ) AS BIGINT) AS stored_scored,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.score_hundredths
          ELSE CAST(%(param_10)s AS INT)
        END
      ),
      CAST(%(coalesce_8)s AS INT)
    ) AS BIGINT) AS stored_score_hundredths,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.learners
          ELSE CAST(%(param_11)s AS INT)
        END
      ),
      CAST(%(coalesce_9)s AS INT)
    ) AS BIGINT) AS recounted_learners,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.started
          ELSE CAST(%(param_12)s AS INT)
        END
      ),
      CAST(%(coalesce_10)s AS INT)
    ) AS BIGINT) AS recounted_started,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.completed
          ELSE CAST(%(param_13)s AS INT)
        END
      ),
      CAST(%(coalesce_11)s AS INT)
    ) AS BIGINT) AS recounted_completed,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.enrollments_completed
          ELSE CAST(%(param_14)s AS INT)
        END
      ),
      CAST(%(coalesce_12)s AS INT)
    ) AS BIGINT) AS recounted_enrollments_completed,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.time_spent_seconds
          ELSE CAST(%(param_15)s AS INT)
        END
      ),
      CAST(%(coalesce_13)s AS INT)
    ) AS BIGINT) AS recounted_time_spent_seconds,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.weighted_sum
          ELSE CAST(%(param_16)s AS INT)
        END
      ),
      CAST(%(coalesce_14)s AS INT)
    ) AS BIGINT) AS recounted_weighted_sum,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.scored
          ELSE CAST(%(param_17)s AS INT)
        END
      ),
      CAST(%(coalesce_15)s AS INT)
    ) AS BIGINT) AS recounted_scored,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.score_hundredths
          ELSE CAST(%(param_18)s AS INT)
        END
      ),
      CAST(%(coalesce_16)s AS INT)
    ) AS BIGINT) AS recounted_score_hundredths
  FROM (
    SELECT
      %(param_19)s AS recounted,
      tallies.kind AS kind,
      tallies.item AS item,
      tallies.learners AS learners,
      tallies.started AS started,
      tallies.completed AS completed,
      tallies.enrollments_completed AS enrollments_completed,
      tallies.time_spent_seconds AS time_spent_seconds,
      tallies.weighted_sum AS weighted_sum,
      tallies.scored AS scored,
      tallies.score_hundredths AS score_hundredths
    FROM tallies
    WHERE
      tallies.module_id = CAST(%(module_id_1)s AS VARCHAR)
      AND tallies.kind IN (CAST(%(kind_1_1)s AS VARCHAR), CAST(%(kind_1_2)s AS VARCHAR))
    UNION ALL
    SELECT
      %(param_20)s AS recounted,
      CAST(%(param_21)s AS VARCHAR) AS kind,
      CAST(enrollments.status AS VARCHAR) AS item,
      COUNT(*) AS learners,
      COUNT(enrollments.last_activity_at) AS started,
      CAST(%(param_22)s AS INT) AS completed,
      CAST(%(param_23)s AS INT) AS enrollments_completed,
      SUM(enrollments.time_spent_seconds) AS time_spent_seconds,
      SUM(enrollments.weighted_sum) AS weighted_sum,
      CAST(%(param_24)s AS INT) AS scored,
      CAST(%(param_25)s AS INT) AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = CAST(%(module_id_2)s AS VARCHAR) AND enrollments.counted
    GROUP BY
      CAST(enrollments.status AS VARCHAR)
    UNION ALL
    SELECT
      %(param_26)s AS recounted,
      CAST(%(param_27)s AS VARCHAR) AS kind,
      CAST(enrollments.weighted_sum / (
        SELECT
          COALESCE(
            NULLIF(modules.total_weight, CAST(%(nullif_1)s AS INT)),
            CAST(%(coalesce_18)s AS INT)
          ) AS coalesce_17
        FROM modules
        WHERE
          modules.id = CAST(%(id_1)s AS VARCHAR)
      ) AS VARCHAR) AS item,
      COUNT(*) AS learners,
      CAST(%(param_28)s AS INT) AS started,
      CAST(%(param_29)s AS INT) AS completed,
      CAST(%(param_30)s AS INT) AS enrollments_completed,
      CAST(%(param_31)s AS INT) AS time_spent_seconds,
      CAST(%(param_32)s AS INT) AS weighted_sum,
      CAST(%(param_33)s AS INT) AS scored,
      CAST(%(param_34)s AS INT) AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = CAST(%(module_id_3)s AS VARCHAR)
      AND enrollments.counted
      AND enrollments.status <> CAST(%(status_1)s AS VARCHAR)
    GROUP BY
      CAST(enrollments.weighted_sum / (
        SELECT
          COALESCE(
            NULLIF(modules.total_weight, CAST(%(nullif_1)s AS INT)),
            CAST(%(coalesce_18)s AS INT)
          ) AS coalesce_17
        FROM modules
        WHERE
          modules.id = CAST(%(id_1)s AS VARCHAR)
      ) AS VARCHAR)
  ) AS parts
  GROUP BY
    parts.kind,
    parts.item
) AS compared
WHERE
  compared.recounted_learners - compared.stored_learners <> CAST(%(param_35)s AS BIGINT)
  OR compared.recounted_started - compared.stored_started <> CAST(%(param_36)s AS BIGINT)
  OR compared.recounted_completed - compared.stored_completed <> CAST(%(param_37)s AS BIGINT)
  OR compared.recounted_enrollments_completed - compared.stored_enrollments_completed <> CAST(%(param_38)s AS BIGINT)
  OR compared.recounted_time_spent_seconds - compared.stored_time_spent_seconds <> CAST(%(param_39)s AS BIGINT)
  OR compared.recounted_weighted_sum - compared.stored_weighted_sum <> CAST(%(param_40)s AS BIGINT)
  OR compared.recounted_scored - compared.stored_scored <> CAST(%(param_41)s AS BIGINT)
  OR compared.recounted_score_hundredths - compared.stored_score_hundredths <> CAST(%(param_42)s AS BIGINT)
ORDER BY
  compared.kind,
  compared.item ON CONFLICT(module_id, kind, item, part) DO UPDATE SET learners = (
  tallies.learners + excluded.learners
), started = (
  tallies.started + excluded.started
), completed = (
  tallies.completed + excluded.completed
), enrollments_completed = (
  tallies.enrollments_completed + excluded.enrollments_completed
), time_spent_seconds = (
  tallies.time_spent_seconds + excluded.time_spent_seconds
), weighted_sum = (
  tallies.weighted_sum + excluded.weighted_sum
), scored = (
  tallies.scored + excluded.scored
), score_hundredths = (
  tallies.score_hundredths + excluded.score_hundredths
);

-- statements.store_tallies: Add the rows of tallies to those that are stored.
INSERT INTO tallies (
  module_id,
  kind,
  item,
  part,
  learners,
  started,
  completed,
  enrollments_completed,
  time_spent_seconds,
  weighted_sum,
  scored,
  score_hundredths
)
SELECT
  tallies.module_id,
  tallies.kind,
  tallies.item,
  tallies.part,
  tallies.learners,
  tallies.started,
  tallies.completed,
  tallies.enrollments_completed,
  tallies.time_spent_seconds,
  tallies.weighted_sum,
  tallies.scored,
  tallies.score_hundredths
FROM (
  SELECT
    (
      tallies_json.value ->> 0
    ) COLLATE "C" AS module_id,
    tallies_json.value ->> 1 AS kind,
    (
      tallies_json.value ->> 2
    ) COLLATE "C" AS item,
    CAST(tallies_json.value ->> 3 AS SMALLINT) AS part,
    CAST(tallies_json.value ->> 4 AS BIGINT) AS learners,
    CAST(tallies_json.value ->> 5 AS BIGINT) AS started,
    CAST(tallies_json.value ->> 6 AS BIGINT) AS completed,
    CAST(tallies_json.value ->> 7 AS BIGINT) AS enrollments_completed,
    CAST(tallies_json.value ->> 8 AS BIGINT) AS time_spent_seconds,
    CAST(tallies_json.value ->> 9 AS BIGINT) AS weighted_sum,
    CAST(tallies_json.value ->> 10 AS BIGINT) AS scored,
    CAST(tallies_json.value ->> 11 AS BIGINT) AS score_hundredths
  FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(tallies)s AS VARCHAR) AS JSONB)) AS tallies_json
) AS tallies
WHERE
  TRUE
ORDER BY
  tallies.module_id,
  tallies.kind,
  tallies.item ON CONFLICT(module_id, kind, item, part) DO UPDATE SET learners = (
  tallies.learners + excluded.learners
), started = (
  tallies.started + excluded.started
), completed = (
  tallies.completed + excluded.completed
), enrollments_completed = (
  tallies.enrollments_completed + excluded.enrollments_completed
), time_spent_seconds = (
  tallies.time_spent_seconds + excluded.time_spent_seconds
), weighted_sum = (
  tallies.weighted_sum + excluded.weighted_sum
), scored = (
  tallies.scored + excluded.scored
), score_hundredths = (
  tallies.score_hundredths + excluded.score_hundredths
);

COMMIT;


-- PUT /api/catalog/modules/{moduleId}, a content that moves
-- =========================================================

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '100', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.publishing._owners, as above

-- store.locks._lock_table, as above

-- store.locks._hold, as above

-- store.locks._hold, as above

-- store.publishing.published, as above

-- store.publishing.published (2), as above

-- store.publishing.published (3), as above

-- store.publishing._owners, as above

-- store.publishing._counted_weights, as above

-- store.publishing._rules, as above

-- store.publishing._rules, as above

-- store.publishing._store, as above

-- store.publishing._store (2), as above

-- store.publishing._store (3), as above

-- store.publishing._store (4), as above

-- store.publishing._store (5), as above

-- statements.write_changes, as above

-- store.publishing._many_rows: Let PostgreSQL join as many rows: its statistics do not know yet how many records this
-- transaction has moved.
SET LOCAL enable_nestloop = off;

-- statements.share_enrolling, as above

-- store.journal.write_selected (2): Write a change of a kind for each of the enrollments or records that the
-- conditions select, as of now.
INSERT INTO changes (
  settled_after,
  type,
  time,
  recorded_at,
  user_id,
  module_id,
  content_id,
  by_sub,
  by_role,
  data,
  is_history
)
SELECT
  GREATEST(
    CAST(CAST(PG_SNAPSHOT_XMAX(PG_CURRENT_SNAPSHOT()) AS TEXT) AS BIGINT) - 1,
    CAST(CAST(PG_CURRENT_XACT_ID() AS TEXT) AS BIGINT)
  ) + COALESCE((
    SELECT
      MAX(order_offset)
    FROM arrivals
  ), 0) AS settled_after,
  CAST(%(param_1)s AS VARCHAR) AS type,
  learners.enrolled_at AS time,
  CAST(%(param_2)s AS TIMESTAMPTZ) AS recorded_at,
  learners.user_id AS user_id,
  learners.module_id AS module_id,
  NULL AS content_id,
  CAST(%(param_3)s AS VARCHAR) AS by_sub,
  CAST(%(param_4)s AS VARCHAR) AS by_role,
  CASE
    WHEN learners.counted
    THEN CAST(%(param_5)s AS VARCHAR)
    ELSE CAST(%(param_6)s AS VARCHAR)
  END AS data,
  TRUE AS is_history
FROM (
  SELECT
    progress_record.user_id AS user_id,
    CAST(%(param_7)s AS VARCHAR) AS module_id,
    COALESCE(MIN(progress_record.started_at), CAST(%(param_8)s AS TIMESTAMPTZ)) AS enrolled_at,
    MAX(
      CASE
        WHEN enrollment.counted
        THEN CAST(%(param_9)s AS INT)
        ELSE CAST(%(param_10)s AS INT)
      END
    ) = CAST(%(max_1)s AS INT) AS counted
  FROM (
    SELECT
      (
        moves_json.value ->> 0
      ) COLLATE "C" AS id,
      (
        moves_json.value ->> 1
      ) COLLATE "C" AS module_id
    FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(moves)s AS VARCHAR) AS JSONB)) AS moves_json
  ) AS moves
  JOIN LATERAL (
    SELECT
      progress_records.user_id AS user_id,
      progress_records.started_at AS started_at
    FROM progress_records
    WHERE
      progress_records.module_id = moves.module_id
      AND progress_records.content_id = moves.id
    LIMIT ALL
    OFFSET 0
  ) AS progress_record
    ON TRUE
  JOIN LATERAL (
    SELECT
      enrollments.counted AS counted
    FROM enrollments
    WHERE
      enrollments.user_id = progress_record.user_id
      AND enrollments.module_id = moves.module_id
    LIMIT ALL
    OFFSET 0
  ) AS enrollment
    ON TRUE
  WHERE
    NOT (
      EXISTS(
        SELECT
          *
        FROM enrollments AS enrollments_1
        WHERE
          enrollments_1.user_id = progress_record.user_id
          AND enrollments_1.module_id = CAST(%(module_id_1)s AS VARCHAR)
      )
    )
  GROUP BY
    progress_record.user_id
) AS learners
ORDER BY
  user_id,
  content_id;

-- store.publishing._enroll: Enroll the learners of moving contents in the module where these arrive, as of their
-- start on them.
INSERT INTO enrollments (
  user_id,
  module_id,
  enrolled_at,
  counted,
  status,
  enrolled_by_update,
  weighted_sum,
  completed_contents,
  time_spent_seconds
)
SELECT
  learners.user_id,
  learners.module_id,
  learners.enrolled_at,
  learners.counted,
  CAST(%(param_1)s AS VARCHAR) AS anon_1,
  TRUE AS anon_2,
  CAST(%(param_2)s AS INT) AS anon_3,
  CAST(%(param_3)s AS INT) AS anon_4,
  CAST(%(param_4)s AS INT) AS anon_5
FROM (
  SELECT
    progress_record.user_id AS user_id,
    CAST(%(param_5)s AS VARCHAR) AS module_id,
    COALESCE(MIN(progress_record.started_at), CAST(%(param_6)s AS TIMESTAMPTZ)) AS enrolled_at,
    MAX(
      CASE
        WHEN enrollment.counted
        THEN CAST(%(param_7)s AS INT)
        ELSE CAST(%(param_8)s AS INT)
      END
    ) = CAST(%(max_1)s AS INT) AS counted
  FROM (
    SELECT
      (
        moves_json.value ->> 0
      ) COLLATE "C" AS id,
      (
        moves_json.value ->> 1
      ) COLLATE "C" AS module_id
    FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(moves)s AS VARCHAR) AS JSONB)) AS moves_json
  ) AS moves
  JOIN LATERAL (
    SELECT
      progress_records.user_id AS user_id,
      progress_records.started_at AS started_at
    FROM progress_records
    WHERE
      progress_records.module_id = moves.module_id
      AND progress_records.content_id = moves.id
    LIMIT ALL
    OFFSET 0
  ) AS progress_record
    ON TRUE
  JOIN LATERAL (
    SELECT
      enrollments.counted AS counted
    FROM enrollments
    WHERE
      enrollments.user_id = progress_record.user_id
      AND enrollments.module_id = moves.module_id
    LIMIT ALL
    OFFSET 0
  ) AS enrollment
    ON TRUE
  WHERE
    NOT (
      EXISTS(
        SELECT
          *
        FROM enrollments AS enrollments_1
        WHERE
          enrollments_1.user_id = progress_record.user_id
          AND enrollments_1.module_id = CAST(%(module_id_1)s AS VARCHAR)
      )
    )
  GROUP BY
    progress_record.user_id
) AS learners;

-- store.publishing._move: Move retired contents to other modules; their records follow (see `models.ProgressRecord`).
UPDATE contents SET module_id = CAST(%(module_id)s AS VARCHAR)
WHERE
  contents.id IN (
    SELECT
      ids.id
    FROM (
      SELECT
        (
          ids_json.value ->> 0
        ) COLLATE "C" AS id
      FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(ids)s AS VARCHAR) AS JSONB)) AS ids_json
    ) AS ids
  );

-- store.publishing._many_rows (2): Let PostgreSQL join as many rows: its statistics do not know yet how many records
-- this transaction has moved.
SET LOCAL enable_nestloop = DEFAULT;

-- statements.store_contents, as above

-- store.recount.denominators, as above

-- store.publishing._many_rows, as above

-- store.publishing._rules, as above

-- store.recount.totals: Recount the totals of all or some of a module's enrollments, and complete the enrollments
-- that are complete.
UPDATE enrollments SET weighted_sum = counted.weighted_sum, completed_contents = counted.completed_contents, time_spent_seconds = counted.time_spent_seconds, enrolled_at = counted.enrolled_at, last_activity_at = counted.last_activity_at, last_content_id = counted.last_content_id, last_is_excused = counted.last_is_excused
FROM (
  SELECT
    dated.user_id AS user_id,
    dated.weighted_sum AS weighted_sum,
    dated.completed_contents AS completed_contents,
    dated.time_spent_seconds AS time_spent_seconds,
    dated.enrolled_at AS enrolled_at,
    dated.last_activity_at AS last_activity_at,
    dated.last_content_id AS last_content_id,
    EXISTS(
      SELECT
        progress_records.id
      FROM progress_records
      WHERE
        progress_records.user_id = dated.user_id
        AND progress_records.content_id = dated.last_content_id
        AND progress_records.excused_at IS NOT NULL
    ) AS last_is_excused
  FROM (
    SELECT
      enrollments.user_id AS user_id,
      CAST(COALESCE(summed.weighted_sum, CAST(%(coalesce_1)s AS INT)) AS BIGINT) AS weighted_sum,
      CAST(COALESCE(summed.completed_contents, CAST(%(coalesce_2)s AS INT)) AS BIGINT) AS completed_contents,
      CAST(COALESCE(summed.time_spent_seconds, CAST(%(coalesce_3)s AS INT)) AS BIGINT) AS time_spent_seconds,
      CASE
        WHEN (
          enrollments.enrolled_by_update AND summed.started_at < enrollments.enrolled_at
        )
        THEN summed.started_at
        ELSE enrollments.enrolled_at
      END AS enrolled_at,
      summed.last_activity_at AS last_activity_at,
      CASE
        WHEN (
          summed.last_activity_at IS NULL
        )
        THEN NULL
        WHEN (
          EXISTS(
            SELECT
              progress_records.id
            FROM progress_records
            WHERE
              progress_records.user_id = enrollments.user_id
              AND (
                progress_records.module_id || ''
              ) = CAST(%(param_1)s AS VARCHAR)
              AND progress_records.last_activity_at = summed.last_activity_at
              AND progress_records.content_id = enrollments.last_content_id
          )
        )
        THEN enrollments.last_content_id
        ELSE (
          SELECT
            MAX(progress_records.content_id) AS max_1
          FROM progress_records
          WHERE
            progress_records.user_id = enrollments.user_id
            AND (
              progress_records.module_id || ''
            ) = CAST(%(param_1)s AS VARCHAR)
            AND progress_records.last_activity_at = summed.last_activity_at
        )
      END AS last_content_id
    FROM enrollments
    LEFT OUTER JOIN (
      SELECT
        progress_records.user_id AS user_id,
        SUM(
          CASE
            WHEN NOT contents.retired
            THEN CAST(contents.weight AS BIGINT) * progress_records.progress_percentage
            ELSE CAST(%(param_2)s AS INT)
          END
        ) AS weighted_sum,
        SUM(
          CASE
            WHEN (
              NOT contents.retired
              AND contents.weight > CAST(%(weight_1)s AS SMALLINT)
              AND (
                progress_records.completed_at IS NOT NULL
                OR progress_records.excused_at IS NOT NULL
              )
            )
            THEN CAST(%(param_3)s AS INT)
            ELSE CAST(%(param_4)s AS INT)
          END
        ) AS completed_contents,
        SUM(progress_records.time_spent_seconds) AS time_spent_seconds,
        MIN(progress_records.started_at) AS started_at,
        MAX(progress_records.last_activity_at) AS last_activity_at
      FROM progress_records
      JOIN contents
        ON contents.id = progress_records.content_id
      WHERE
        progress_records.module_id = CAST(%(module_id_1)s AS VARCHAR)
      GROUP BY
        progress_records.user_id
    ) AS summed
      ON summed.user_id = enrollments.user_id
    WHERE
      enrollments.module_id = CAST(%(module_id_2)s AS VARCHAR)
  ) AS dated
) AS counted
WHERE
  enrollments.module_id = CAST(%(module_id_3)s AS VARCHAR)
  AND enrollments.user_id = counted.user_id
  AND (
    enrollments.weighted_sum IS DISTINCT FROM counted.weighted_sum
    OR enrollments.completed_contents IS DISTINCT FROM counted.completed_contents
    OR enrollments.time_spent_seconds IS DISTINCT FROM counted.time_spent_seconds
    OR enrollments.enrolled_at IS DISTINCT FROM counted.enrolled_at
    OR enrollments.last_activity_at IS DISTINCT FROM counted.last_activity_at
    OR enrollments.last_content_id IS DISTINCT FROM counted.last_content_id
    OR enrollments.last_is_excused IS DISTINCT FROM counted.last_is_excused
  );

-- store.recount._complete, as above

-- store.journal.write_selected, as above

-- store.recount._complete (2), as above

-- store.recount.tallies (2): Recount the tallies of a module and add the difference.
INSERT INTO tallies (
  module_id,
  kind,
  item,
  part,
  learners,
  started,
  completed,
  enrollments_completed,
  time_spent_seconds,
  weighted_sum,
  scored,
  score_hundredths
)
SELECT
  CAST(%(param_1)s AS VARCHAR) AS anon_1,
  compared.kind,
  compared.item,
  CAST(%(param_2)s AS INT) AS anon_2,
  compared.recounted_learners - compared.stored_learners AS anon_3,
  compared.recounted_started - compared.stored_started AS anon_4,
  compared.recounted_completed - compared.stored_completed AS anon_5,
  compared.recounted_enrollments_completed - compared.stored_enrollments_completed AS anon_6,
  compared.recounted_time_spent_seconds - compared.stored_time_spent_seconds AS anon_7,
  compared.recounted_weighted_sum - compared.stored_weighted_sum AS anon_8,
  compared.recounted_scored - compared.stored_scored AS anon_9,
  compared.recounted_score_hundredths - compared.stored_score_hundredths AS anon_10
FROM (
  SELECT
    parts.kind AS kind,
    parts.item AS item,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.learners
          ELSE CAST(%(param_3)s AS INT)
        END
      ),
      CAST(%(coalesce_1)s AS INT)
    ) AS BIGINT) AS stored_learners,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.started
          ELSE CAST(%(param_4)s AS INT)
        END
      ),
      CAST(%(coalesce_2)s AS INT)
    ) AS BIGINT) AS stored_started,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.completed
          ELSE CAST(%(param_5)s AS INT)
        END
      ),
      CAST(%(coalesce_3)s AS INT)
    ) AS BIGINT) AS stored_completed,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.enrollments_completed
          ELSE CAST(%(param_6)s AS INT)
        END
      ),
      CAST(%(coalesce_4)s AS INT)
    ) AS BIGINT) AS stored_enrollments_completed,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.time_spent_seconds
          ELSE CAST(%(param_7)s AS INT)
        END
      ),
      CAST(%(coalesce_5)s AS INT)
    ) AS BIGINT) AS stored_time_spent_seconds,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.weighted_sum
          ELSE CAST(%(param_8)s AS INT)
        END
      ),
      CAST(%(coalesce_6)s AS INT)
    ) AS BIGINT) AS stored_weighted_sum,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.scored
          ELSE CAST(%(param_9)s AS INT)
        END
      ),
      CAST(%(coalesce_7)s AS INT)
    ) AS BIGINT) AS stored_scored,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.score_hundredths
          ELSE CAST(%(param_10)s AS INT)
        END
      ),
      CAST(%(coalesce_8)s AS INT)
    ) AS BIGINT) AS stored_score_hundredths,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.learners
          ELSE CAST(%(param_11)s AS INT)
        END
      ),
      CAST(%(coalesce_9)s AS INT)
    ) AS BIGINT) AS recounted_learners,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.started
          ELSE CAST(%(param_12)s AS INT)
        END
      ),
      CAST(%(coalesce_10)s AS INT)
    ) AS BIGINT) AS recounted_started,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.completed
          ELSE CAST(%(param_13)s AS INT)
        END
      ),
      CAST(%(coalesce_11)s AS INT)
    ) AS BIGINT) AS recounted_completed,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.enrollments_completed
          ELSE CAST(%(param_14)s AS INT)
        END
      ),
      CAST(%(coalesce_12)s AS INT)
    ) AS BIGINT) AS recounted_enrollments_completed,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.time_spent_seconds
          ELSE CAST(%(param_15)s AS INT)
        END
      ),
      CAST(%(coalesce_13)s AS INT)
    ) AS BIGINT) AS recounted_time_spent_seconds,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.weighted_sum
          ELSE CAST(%(param_16)s AS INT)
        END
      ),
      CAST(%(coalesce_14)s AS INT)
    ) AS BIGINT) AS recounted_weighted_sum,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.scored
          ELSE CAST(%(param_17)s AS INT)
        END
      ),
      CAST(%(coalesce_15)s AS INT)
    ) AS BIGINT) AS recounted_scored,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.score_hundredths
          ELSE CAST(%(param_18)s AS INT)
        END
      ),
      CAST(%(coalesce_16)s AS INT)
    ) AS BIGINT) AS recounted_score_hundredths
  FROM (
    SELECT
      %(param_19)s AS recounted,
      tallies.kind AS kind,
      tallies.item AS item,
      tallies.learners AS learners,
      tallies.started AS started,
      tallies.completed AS completed,
      tallies.enrollments_completed AS enrollments_completed,
      tallies.time_spent_seconds AS time_spent_seconds,
      tallies.weighted_sum AS weighted_sum,
      tallies.scored AS scored,
      tallies.score_hundredths AS score_hundredths
    FROM tallies
    WHERE
      tallies.module_id = CAST(%(module_id_1)s AS VARCHAR)
      AND tallies.kind IN (
        CAST(%(kind_1_1)s AS VARCHAR),
        CAST(%(kind_1_2)s AS VARCHAR),
        CAST(%(kind_1_3)s AS VARCHAR),
        CAST(%(kind_1_4)s AS VARCHAR),
        CAST(%(kind_1_5)s AS VARCHAR),
        CAST(%(kind_1_6)s AS VARCHAR),
        CAST(%(kind_1_7)s AS VARCHAR)
      )
    UNION ALL
    SELECT
      %(param_20)s AS recounted,
      CAST(%(param_21)s AS VARCHAR) AS kind,
      CAST(enrollments.status AS VARCHAR) AS item,
      COUNT(*) AS learners,
      COUNT(enrollments.last_activity_at) AS started,
      CAST(%(param_22)s AS INT) AS completed,
      CAST(%(param_23)s AS INT) AS enrollments_completed,
      SUM(enrollments.time_spent_seconds) AS time_spent_seconds,
      SUM(enrollments.weighted_sum) AS weighted_sum,
      CAST(%(param_24)s AS INT) AS scored,
      CAST(%(param_25)s AS INT) AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = CAST(%(module_id_2)s AS VARCHAR) AND enrollments.counted
    GROUP BY
      CAST(enrollments.status AS VARCHAR)
    UNION ALL
    SELECT
      %(param_26)s AS recounted,
      CAST(%(param_27)s AS VARCHAR) AS kind,
      CAST(enrollments.weighted_sum / (
        SELECT
          COALESCE(
            NULLIF(modules.total_weight, CAST(%(nullif_1)s AS INT)),
            CAST(%(coalesce_18)s AS INT)
          ) AS coalesce_17
        FROM modules
        WHERE
          modules.id = CAST(%(id_1)s AS VARCHAR)
      ) AS VARCHAR) AS item,
      COUNT(*) AS learners,
      CAST(%(param_28)s AS INT) AS started,
      CAST(%(param_29)s AS INT) AS completed,
      CAST(%(param_30)s AS INT) AS enrollments_completed,
      CAST(%(param_31)s AS INT) AS time_spent_seconds,
      CAST(%(param_32)s AS INT) AS weighted_sum,
      CAST(%(param_33)s AS INT) AS scored,
      CAST(%(param_34)s AS INT) AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = CAST(%(module_id_3)s AS VARCHAR)
      AND enrollments.counted
      AND enrollments.status <> CAST(%(status_1)s AS VARCHAR)
    GROUP BY
      CAST(enrollments.weighted_sum / (
        SELECT
          COALESCE(
            NULLIF(modules.total_weight, CAST(%(nullif_1)s AS INT)),
            CAST(%(coalesce_18)s AS INT)
          ) AS coalesce_17
        FROM modules
        WHERE
          modules.id = CAST(%(id_1)s AS VARCHAR)
      ) AS VARCHAR)
    UNION ALL
    SELECT
      %(param_35)s AS recounted,
      CAST(%(param_36)s AS VARCHAR) AS kind,
      CAST(TO_CHAR(DATE_TRUNC('WEEK', TIMEZONE('UTC', enrollments.last_activity_at)), 'YYYY-MM-DD') || CAST(%(param_37)s AS VARCHAR) || enrollments.last_content_id AS VARCHAR) AS item,
      COUNT(*) AS learners,
      CAST(%(param_38)s AS INT) AS started,
      CAST(%(param_39)s AS INT) AS completed,
      CAST(%(param_40)s AS INT) AS enrollments_completed,
      CAST(%(param_41)s AS INT) AS time_spent_seconds,
      CAST(%(param_42)s AS INT) AS weighted_sum,
      CAST(%(param_43)s AS INT) AS scored,
      CAST(%(param_44)s AS INT) AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = CAST(%(module_id_4)s AS VARCHAR)
      AND enrollments.counted
      AND enrollments.status IN (CAST(%(status_2_1)s AS VARCHAR), CAST(%(status_2_2)s AS VARCHAR))
      AND enrollments.last_activity_at IS NOT NULL
      AND NOT enrollments.last_is_excused
    GROUP BY
      CAST(TO_CHAR(DATE_TRUNC('WEEK', TIMEZONE('UTC', enrollments.last_activity_at)), 'YYYY-MM-DD') || CAST(%(param_37)s AS VARCHAR) || enrollments.last_content_id AS VARCHAR)
    UNION ALL
    SELECT
      %(param_45)s AS recounted,
      CAST(%(param_46)s AS VARCHAR) AS kind,
      CAST(TO_CHAR(TIMEZONE('UTC', enrollments.last_activity_at), 'YYYY-MM-DD') || CAST(%(param_47)s AS VARCHAR) || enrollments.last_content_id AS VARCHAR) AS item,
      COUNT(*) AS learners,
      CAST(%(param_48)s AS INT) AS started,
      CAST(%(param_49)s AS INT) AS completed,
      CAST(%(param_50)s AS INT) AS enrollments_completed,
      CAST(%(param_51)s AS INT) AS time_spent_seconds,
      CAST(%(param_52)s AS INT) AS weighted_sum,
      CAST(%(param_53)s AS INT) AS scored,
      CAST(%(param_54)s AS INT) AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = CAST(%(module_id_5)s AS VARCHAR)
      AND enrollments.counted
      AND enrollments.status IN (CAST(%(status_2_1)s AS VARCHAR), CAST(%(status_2_2)s AS VARCHAR))
      AND enrollments.last_activity_at IS NOT NULL
      AND NOT enrollments.last_is_excused
    GROUP BY
      CAST(TO_CHAR(TIMEZONE('UTC', enrollments.last_activity_at), 'YYYY-MM-DD') || CAST(%(param_47)s AS VARCHAR) || enrollments.last_content_id AS VARCHAR)
    UNION ALL
    SELECT
      %(param_55)s AS recounted,
      CAST(%(param_56)s AS VARCHAR) AS kind,
      CAST(TO_CHAR(TIMEZONE('UTC', enrollments.completed_at), 'YYYY-MM-DD') AS VARCHAR) AS item,
      CAST(%(param_57)s AS INT) AS learners,
      CAST(%(param_58)s AS INT) AS started,
      CAST(%(param_59)s AS INT) AS completed,
      COUNT(*) AS enrollments_completed,
      CAST(%(param_60)s AS INT) AS time_spent_seconds,
      CAST(%(param_61)s AS INT) AS weighted_sum,
      CAST(%(param_62)s AS INT) AS scored,
      CAST(%(param_63)s AS INT) AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = CAST(%(module_id_6)s AS VARCHAR)
      AND enrollments.counted
      AND enrollments.completed_at IS NOT NULL
    GROUP BY
      CAST(TO_CHAR(TIMEZONE('UTC', enrollments.completed_at), 'YYYY-MM-DD') AS VARCHAR)
    UNION ALL
    SELECT
      %(param_64)s AS recounted,
      CAST(%(param_65)s AS VARCHAR) AS kind,
      CAST(progress_records.content_id AS VARCHAR) AS item,
      COUNT(*) AS learners,
      CAST(%(param_66)s AS INT) AS started,
      CAST(%(param_67)s AS INT) AS completed,
      CAST(%(param_68)s AS INT) AS enrollments_completed,
      CAST(%(param_69)s AS INT) AS time_spent_seconds,
      CAST(%(param_70)s AS INT) AS weighted_sum,
      CAST(%(param_71)s AS INT) AS scored,
      CAST(%(param_72)s AS INT) AS score_hundredths
    FROM progress_records
    WHERE
      progress_records.module_id = CAST(%(module_id_7)s AS VARCHAR)
      AND (
        NOT progress_records.user_id IN (
          SELECT
            enrollments.user_id
          FROM enrollments
          WHERE
            enrollments.module_id = CAST(%(module_id_8)s AS VARCHAR)
            AND NOT enrollments.counted
        )
      )
      AND progress_records.excused_at IS NOT NULL
    GROUP BY
      CAST(progress_records.content_id AS VARCHAR)
    UNION ALL
    SELECT
      %(param_73)s AS recounted,
      CAST(%(param_74)s AS VARCHAR) AS kind,
      CAST(progress_records.content_id AS VARCHAR) AS item,
      CAST(%(param_75)s AS INT) AS learners,
      COUNT(*) AS started,
      COUNT(progress_records.completed_at) AS completed,
      CAST(%(param_76)s AS INT) AS enrollments_completed,
      SUM(progress_records.time_spent_seconds) AS time_spent_seconds,
      CAST(%(param_77)s AS INT) AS weighted_sum,
      COUNT(progress_records.score) AS scored,
      COALESCE(
        SUM(
          (
            progress_records.score * CAST(%(score_1)s AS BIGINT)
          ) / progress_records.max_score
        ),
        CAST(%(coalesce_19)s AS INT)
      ) AS score_hundredths
    FROM progress_records
    WHERE
      progress_records.module_id = CAST(%(module_id_9)s AS VARCHAR)
      AND (
        NOT progress_records.user_id IN (
          SELECT
            enrollments.user_id
          FROM enrollments
          WHERE
            enrollments.module_id = CAST(%(module_id_10)s AS VARCHAR)
            AND NOT enrollments.counted
        )
      )
      AND progress_records.excused_at IS NULL
    GROUP BY
      CAST(progress_records.content_id AS VARCHAR)
    UNION ALL
    SELECT
      %(param_78)s AS recounted,
      CAST(%(param_79)s AS VARCHAR) AS kind,
      CAST(TO_CHAR(TIMEZONE('UTC', progress_records.started_at), 'YYYY-MM-DD') AS VARCHAR) AS item,
      CAST(%(param_80)s AS INT) AS learners,
      COUNT(*) AS started,
      CAST(%(param_81)s AS INT) AS completed,
      CAST(%(param_82)s AS INT) AS enrollments_completed,
      CAST(%(param_83)s AS INT) AS time_spent_seconds,
      CAST(%(param_84)s AS INT) AS weighted_sum,
      CAST(%(param_85)s AS INT) AS scored,
      CAST(%(param_86)s AS INT) AS score_hundredths
    FROM progress_records
    WHERE
      progress_records.module_id = CAST(%(module_id_11)s AS VARCHAR)
      AND (
        NOT progress_records.user_id IN (
          SELECT
            enrollments.user_id
          FROM enrollments
          WHERE
            enrollments.module_id = CAST(%(module_id_12)s AS VARCHAR)
            AND NOT enrollments.counted
        )
      )
      AND progress_records.excused_at IS NULL
    GROUP BY
      CAST(TO_CHAR(TIMEZONE('UTC', progress_records.started_at), 'YYYY-MM-DD') AS VARCHAR)
    UNION ALL
    SELECT
      %(param_87)s AS recounted,
      CAST(%(param_88)s AS VARCHAR) AS kind,
      CAST(TO_CHAR(TIMEZONE('UTC', progress_records.completed_at), 'YYYY-MM-DD') AS VARCHAR) AS item,
      CAST(%(param_89)s AS INT) AS learners,
      CAST(%(param_90)s AS INT) AS started,
      COUNT(*) AS completed,
      CAST(%(param_91)s AS INT) AS enrollments_completed,
      CAST(%(param_92)s AS INT) AS time_spent_seconds,
      CAST(%(param_93)s AS INT) AS weighted_sum,
      CAST(%(param_94)s AS INT) AS scored,
      CAST(%(param_95)s AS INT) AS score_hundredths
    FROM progress_records
    WHERE
      progress_records.module_id = CAST(%(module_id_13)s AS VARCHAR)
      AND (
        NOT progress_records.user_id IN (
          SELECT
            enrollments.user_id
          FROM enrollments
          WHERE
            enrollments.module_id = CAST(%(module_id_14)s AS VARCHAR)
            AND NOT enrollments.counted
        )
      )
      AND progress_records.completed_at IS NOT NULL
      AND progress_records.excused_at IS NULL
    GROUP BY
      CAST(TO_CHAR(TIMEZONE('UTC', progress_records.completed_at), 'YYYY-MM-DD') AS VARCHAR)
    UNION ALL
    SELECT
      %(param_96)s AS recounted,
      CAST(%(param_97)s AS VARCHAR) AS kind,
      CAST(activity_days.day AS VARCHAR) AS item,
      COUNT(*) AS learners,
      CAST(%(param_98)s AS INT) AS started,
      CAST(%(param_99)s AS INT) AS completed,
      CAST(%(param_100)s AS INT) AS enrollments_completed,
      SUM(activity_days.time_spent_seconds) AS time_spent_seconds,
      CAST(%(param_101)s AS INT) AS weighted_sum,
      CAST(%(param_102)s AS INT) AS scored,
      CAST(%(param_103)s AS INT) AS score_hundredths
    FROM activity_days, enrollments
    WHERE
      enrollments.module_id = CAST(%(module_id_15)s AS VARCHAR)
      AND enrollments.counted
      AND enrollments.user_id = activity_days.user_id
      AND activity_days.module_id = CAST(%(module_id_16)s AS VARCHAR)
    GROUP BY
      CAST(activity_days.day AS VARCHAR)
  ) AS parts
  GROUP BY
    parts.kind,
    parts.item
) AS compared
WHERE
  compared.recounted_learners - compared.stored_learners <> CAST(%(param_104)s AS BIGINT)
  OR compared.recounted_started - compared.stored_started <> CAST(%(param_105)s AS BIGINT)
  OR compared.recounted_completed - compared.stored_completed <> CAST(%(param_106)s AS BIGINT)
  OR compared.recounted_enrollments_completed - compared.stored_enrollments_completed <> CAST(%(param_107)s AS BIGINT)
  OR compared.recounted_time_spent_seconds - compared.stored_time_spent_seconds <> CAST(%(param_108)s AS BIGINT)
  OR compared.recounted_weighted_sum - compared.stored_weighted_sum <> CAST(%(param_109)s AS BIGINT)
  OR compared.recounted_scored - compared.stored_scored <> CAST(%(param_110)s AS BIGINT)
  OR compared.recounted_score_hundredths - compared.stored_score_hundredths <> CAST(%(param_111)s AS BIGINT)
ORDER BY
  compared.kind,
  compared.item ON CONFLICT(module_id, kind, item, part) DO UPDATE SET learners = (
  tallies.learners + excluded.learners
), started = (
  tallies.started + excluded.started
), completed = (
  tallies.completed + excluded.completed
), enrollments_completed = (
  tallies.enrollments_completed + excluded.enrollments_completed
), time_spent_seconds = (
  tallies.time_spent_seconds + excluded.time_spent_seconds
), weighted_sum = (
  tallies.weighted_sum + excluded.weighted_sum
), scored = (
  tallies.scored + excluded.scored
), score_hundredths = (
  tallies.score_hundredths + excluded.score_hundredths
);

-- store.publishing._many_rows (2), as above

-- store.publishing._many_rows, as above

-- store.publishing._rules, as above

-- store.recount.totals, as above

-- store.recount._complete, as above

-- store.journal.write_selected, as above

-- store.recount._complete (2), as above

-- store.recount.tallies (2), as above

-- store.publishing._many_rows (2), as above

COMMIT;


-- POST /api/progress/batch, which completes an enrollment
-- =======================================================

BEGIN ISOLATION LEVEL READ COMMITTED;

-- statements.lock_modules_of_contents, as above

-- statements.lock_enrollments_of_contents, as above

-- statements.read, as above

-- statements.last_completions: Find the last completion of a counted content under each enrollment, without the
-- contents of the keys.
SELECT
  enrollment_keys.user_id,
  enrollment_keys.module_id,
  (
    SELECT
      MAX(
        CASE
          WHEN (
            progress_records.completed_at IS NULL
          )
          THEN progress_records.excused_at
          WHEN (
            progress_records.excused_at < progress_records.completed_at
          )
          THEN progress_records.excused_at
          ELSE progress_records.completed_at
        END
      ) AS max_1
    FROM progress_records
    JOIN contents
      ON contents.id = progress_records.content_id
      AND NOT contents.retired
      AND contents.weight > CAST(%(weight_1)s AS SMALLINT)
    JOIN enrollments
      ON enrollments.user_id = enrollment_keys.user_id
      AND enrollments.module_id = enrollment_keys.module_id
    WHERE
      progress_records.user_id = enrollment_keys.user_id
      AND progress_records.module_id = enrollment_keys.module_id
      AND (
        enrollments.completed_at IS NULL
        OR CASE
          WHEN (
            progress_records.completed_at IS NULL
          )
          THEN progress_records.excused_at
          WHEN (
            progress_records.excused_at < progress_records.completed_at
          )
          THEN progress_records.excused_at
          ELSE progress_records.completed_at
        END <= enrollments.completed_at
      )
      AND (
        NOT (progress_records.user_id, progress_records.content_id) IN (
          SELECT
            keys.user_id,
            keys.content_id
          FROM (
            SELECT
              (
                keys_json.value ->> 0
              ) COLLATE "C" AS user_id,
              (
                keys_json.value ->> 1
              ) COLLATE "C" AS content_id,
              CAST(keys_json.value ->> 2 AS DATE) AS day,
              CAST(keys_json.value ->> 3 AS TIMESTAMPTZ) AS enrolled_at,
              CAST(keys_json.value ->> 4 AS BOOLEAN) AS by_instructor,
              CAST(keys_json.value ->> 5 AS BIGINT) AS place
            FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(keys)s AS VARCHAR) AS JSONB)) AS keys_json
          ) AS keys
        )
      )
  ) AS completed_at
FROM (
  SELECT
    (
      enrollment_keys_json.value ->> 0
    ) COLLATE "C" AS user_id,
    (
      enrollment_keys_json.value ->> 1
    ) COLLATE "C" AS module_id,
    CAST(enrollment_keys_json.value ->> 2 AS TIMESTAMPTZ) AS enrolled_at
  FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(enrollment_keys)s AS VARCHAR) AS JSONB)) AS enrollment_keys_json
) AS enrollment_keys;

-- statements.share_enrolling, as above

-- statements.store, as above

-- statements.write_changes, as above

COMMIT;


-- GET /api/progress/{userId}
-- ==========================

-- progress.queries.dashboard: List a learner's modules, latest activity first, and find the content with which they
-- continue.
SELECT
  following.module_id,
  following.content_id,
  following.title,
  following.progress_percentage,
  following.position,
  following.last_activity_at,
  modules.total_weight,
  modules.total_contents,
  enrollments.user_id,
  enrollments.module_id AS module_id_1,
  enrollments.status,
  enrollments.enrolled_at,
  enrollments.weighted_sum,
  enrollments.completed_contents,
  enrollments.time_spent_seconds,
  enrollments.completed_at,
  enrollments.last_activity_at AS last_activity_at_1,
  enrollments.last_content_id,
  enrollments.enrolled_by_update,
  enrollments.counted,
  enrollments.last_is_excused,
  enrollments.credited,
  modules.title AS title_1
FROM enrollments
JOIN modules
  ON modules.id = enrollments.module_id
LEFT OUTER JOIN (
  SELECT
    contents_1.module_id AS module_id,
    contents_1.id AS content_id,
    contents_1.title AS title,
    COALESCE(progress_records_1.progress_percentage, 0) AS progress_percentage,
    progress_records_1.position AS position,
    progress_records_1.last_activity_at AS last_activity_at
  FROM (
    SELECT
      enrollments.module_id AS module_id,
      enrollments.last_content_id AS last_content_id
    FROM enrollments
    JOIN modules
      ON modules.id = enrollments.module_id
    WHERE
      enrollments.user_id = CAST(%(user_id)s AS VARCHAR)
      AND enrollments.status <> 'dropped'
      AND (
        enrollments.completed_contents < modules.total_contents
        OR enrollments.status IN ('active', 'paused')
        AND (
          EXISTS(
            SELECT
              contents_1.id
            FROM contents AS contents_1
            LEFT OUTER JOIN progress_records AS progress_records_1
              ON progress_records_1.content_id = contents_1.id
              AND progress_records_1.user_id = CAST(%(user_id)s AS VARCHAR)
            WHERE
              contents_1.module_id = enrollments.module_id
              AND NOT contents_1.retired
              AND progress_records_1.completed_at IS NULL
              AND progress_records_1.excused_at IS NULL
          )
        )
      )
    ORDER BY
      enrollments.last_activity_at DESC NULLS LAST,
      enrollments.enrolled_at DESC,
      enrollments.module_id
    LIMIT 1
  ) AS following_module
  JOIN contents AS contents_1
    ON contents_1.module_id = following_module.module_id
  LEFT OUTER JOIN progress_records AS progress_records_1
    ON progress_records_1.content_id = contents_1.id
    AND progress_records_1.user_id = CAST(%(user_id)s AS VARCHAR)
  LEFT OUTER JOIN contents AS contents_2
    ON contents_2.id = following_module.last_content_id AND NOT contents_2.retired
  WHERE
    NOT contents_1.retired
    AND progress_records_1.completed_at IS NULL
    AND progress_records_1.excused_at IS NULL
  ORDER BY
    CASE
      WHEN (
        contents_1.id = following_module.last_content_id
      )
      THEN CAST(%(param_1)s AS INT)
      WHEN (
        contents_1.weight > CAST(%(weight_1)s AS SMALLINT)
      )
      THEN CAST(%(param_2)s AS INT)
      ELSE CAST(%(param_3)s AS INT)
    END,
    CASE
      WHEN (
        contents_1.ordinal > contents_2.ordinal
      )
      THEN CAST(%(param_4)s AS INT)
      ELSE CAST(%(param_5)s AS INT)
    END,
    contents_1.ordinal
  LIMIT 1
) AS following
  ON TRUE
WHERE
  enrollments.user_id = CAST(%(user_id)s AS VARCHAR)
ORDER BY
  enrollments.last_activity_at DESC NULLS LAST,
  enrollments.module_id;

COMMIT;


-- GET /api/progress/{userId}/{moduleId}, by an instructor
-- =======================================================

-- web.auth.authorize: Raise 403 for data beyond the caller's reach: of another learner, or of a module that others
-- teach.
SELECT
  module_instructors.module_id
FROM module_instructors
WHERE
  module_instructors.module_id = CAST(%(module_id)s AS VARCHAR)
  AND module_instructors.user_id = CAST(%(user_id)s AS VARCHAR);

-- progress.queries.learner_module: Find a module with its contents, and a learner's records of them.
SELECT
  modules.title,
  modules.total_weight,
  modules.total_contents,
  enrollments.user_id,
  enrollments.module_id,
  enrollments.status,
  enrollments.enrolled_at,
  enrollments.weighted_sum,
  enrollments.completed_contents,
  enrollments.time_spent_seconds,
  enrollments.completed_at,
  enrollments.last_activity_at,
  enrollments.last_content_id,
  enrollments.enrolled_by_update,
  enrollments.counted,
  enrollments.last_is_excused,
  enrollments.credited,
  contents.id,
  contents.title AS title_1,
  contents.type,
  contents.section,
  contents.weight,
  contents.module_id AS module_id_1,
  contents.weight AS weight__1,
  contents.completion_threshold,
  contents.passing_score,
  contents.retired,
  progress_records.id AS id_1,
  progress_records.user_id AS user_id_1,
  progress_records.module_id AS module_id_2,
  progress_records.content_id,
  progress_records.started_at,
  progress_records.last_activity_at AS last_activity_at_1,
  progress_records.furthest_percentage,
  progress_records.time_spent_seconds AS time_spent_seconds_1,
  progress_records.score,
  progress_records.max_score,
  progress_records.position,
  progress_records.position_at,
  progress_records.completed_at AS completed_at_1,
  progress_records.reached_at,
  progress_records.passed_at,
  progress_records.excused_at
FROM modules
LEFT OUTER JOIN enrollments
  ON enrollments.module_id = modules.id
  AND enrollments.user_id = CAST(%(user_id)s AS VARCHAR)
LEFT OUTER JOIN contents
  ON contents.module_id = modules.id AND NOT contents.retired
LEFT OUTER JOIN progress_records
  ON progress_records.content_id = contents.id
  AND progress_records.user_id = CAST(%(user_id)s AS VARCHAR)
WHERE
  modules.id = CAST(%(module_id)s AS VARCHAR)
ORDER BY
  contents.ordinal;

COMMIT;


-- GET /api/progress/{userId}/{moduleId}/history
-- =============================================

-- progress.queries.history: List what happened to a learner in a module before a change, newest first; None if there
-- is no such module.
SELECT
  told.id,
  told.type,
  told.time,
  told.recorded_at,
  told.user_id,
  told.module_id,
  told.content_id,
  told.by_sub,
  told.by_role,
  told.data
FROM modules
LEFT OUTER JOIN (
  SELECT
    changes.id AS id,
    changes.type AS type,
    changes.time AS time,
    changes.recorded_at AS recorded_at,
    changes.user_id AS user_id,
    changes.module_id AS module_id,
    changes.content_id AS content_id,
    changes.by_sub AS by_sub,
    changes.by_role AS by_role,
    changes.data AS data
  FROM changes
  WHERE
    changes.user_id = CAST(%(user_id)s AS VARCHAR)
    AND changes.module_id = CAST(%(module_id)s AS VARCHAR)
    AND changes.is_history
    AND changes.id < CAST(%(before)s AS BIGINT)
  ORDER BY
    changes.id DESC
  LIMIT CAST(%(limit)s AS INT)
) AS told
  ON TRUE
WHERE
  modules.id = CAST(%(module_id)s AS VARCHAR)
ORDER BY
  told.id DESC;

COMMIT;


-- GET /api/changes
-- ================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- changes.queries._first_open: Return the first transaction that has not ended; it is the same in all statements of a
-- snapshot.
SELECT
  (
    CAST(CAST(PG_SNAPSHOT_XMIN(PG_CURRENT_SNAPSHOT()) AS TEXT) AS BIGINT) + COALESCE((
      SELECT
        MAX(order_offset)
      FROM arrivals
    ), 0)
  ) AS anon_1;

-- changes.queries.feed: List the first changes behind a place: those of some types, if any are given, and of some
-- modules or of none.
SELECT
  changes.settled_after,
  changes.id,
  changes.id AS id__1,
  changes.type,
  changes.time,
  changes.recorded_at,
  changes.user_id,
  changes.module_id,
  changes.content_id,
  changes.by_sub,
  changes.by_role,
  changes.data
FROM changes
WHERE
  changes.id IN (
    SELECT
      changes.id
    FROM changes
    WHERE
      (changes.settled_after, changes.id) > (CAST(%(param_1)s AS BIGINT), CAST(%(param_2)s AS BIGINT))
      AND changes.settled_after < CAST(%(settled_after_1)s AS BIGINT)
    ORDER BY
      changes.settled_after,
      changes.id
    LIMIT CAST(%(param_3)s AS INT)
  )
  AND changes.type IN (CAST(%(type_1_1)s AS VARCHAR))
  AND (
    changes.module_id IN (CAST(%(module_id_1_1)s AS VARCHAR))
    OR changes.module_id IS NULL
  )
ORDER BY
  changes.settled_after,
  changes.id
LIMIT CAST(%(param_4)s AS INT);

-- changes.queries.feed (2): List the first changes behind a place: those of some types, if any are given, and of some
-- modules or of none.
SELECT
  looked_at.settled_after,
  looked_at.id,
  COUNT(*) OVER () AS anon_1
FROM (
  SELECT
    changes.id AS id,
    changes.settled_after AS settled_after
  FROM changes
  WHERE
    (changes.settled_after, changes.id) > (CAST(%(param_1)s AS BIGINT), CAST(%(param_2)s AS BIGINT))
    AND changes.settled_after < CAST(%(settled_after_1)s AS BIGINT)
  ORDER BY
    changes.settled_after,
    changes.id
  LIMIT CAST(%(param_3)s AS INT)
) AS looked_at
ORDER BY
  looked_at.settled_after DESC,
  looked_at.id DESC
LIMIT CAST(%(param_4)s AS INT);

COMMIT;


-- PUT /api/webhooks/{webhookId}, a new webhook
-- ============================================

BEGIN ISOLATION LEVEL READ COMMITTED;

-- store.webhooks.lock: Lock a webhook and read it.
SELECT
  webhooks.id,
  webhooks.url,
  webhooks.types,
  webhooks.module_ids,
  webhooks.active,
  webhooks.secret,
  webhooks.previous_secret,
  webhooks.previous_until,
  webhooks.settled_after,
  webhooks.change_id,
  webhooks.failing_since,
  webhooks.last_status,
  webhooks.leased_until
FROM webhooks
WHERE
  webhooks.id = CAST(%(id_1)s AS VARCHAR)   FOR UPDATE;

-- changes.queries._first_open, as above

-- changes.queries.end: Return the place behind the last change.
SELECT
  changes.settled_after,
  changes.id
FROM changes
WHERE
  changes.settled_after < CAST(%(settled_after_1)s AS BIGINT)
ORDER BY
  changes.settled_after DESC,
  changes.id DESC
LIMIT CAST(%(param_1)s AS INT);

-- store.webhooks.make: Store a new webhook, which is to be told what comes behind a place.
INSERT INTO webhooks (
  id,
  url,
  types,
  module_ids,
  active,
  secret,
  previous_secret,
  previous_until,
  settled_after,
  change_id,
  failing_since,
  last_status,
  leased_until
)
VALUES
  (
    CAST(%(id)s AS VARCHAR),
    CAST(%(url)s AS VARCHAR),
    CAST(%(types)s AS JSON),
    CAST(%(module_ids)s AS JSON),
    %(active)s,
    CAST(%(secret)s AS VARCHAR),
    CAST(%(previous_secret)s AS VARCHAR),
    CAST(%(previous_until)s AS TIMESTAMPTZ),
    CAST(%(settled_after)s AS BIGINT),
    CAST(%(change_id)s AS BIGINT),
    CAST(%(failing_since)s AS TIMESTAMPTZ),
    CAST(%(last_status)s AS SMALLINT),
    CAST(%(leased_until)s AS TIMESTAMPTZ)
  );

-- store.webhooks.pending: Count what waits for a webhook among the next changes, settled or not.
SELECT
  COUNT(*) AS count_1,
  MIN(changes.recorded_at) AS min_1
FROM changes
WHERE
  changes.id IN (
    SELECT
      changes.id
    FROM changes
    WHERE
      (changes.settled_after, changes.id) > (CAST(%(param_1)s AS BIGINT), CAST(%(param_2)s AS BIGINT))
    ORDER BY
      changes.settled_after,
      changes.id
    LIMIT CAST(%(param_3)s AS INT)
  )
  AND changes.type IN (CAST(%(type_1_1)s AS VARCHAR))
  AND (
    changes.module_id IN (CAST(%(module_id_1_1)s AS VARCHAR))
    OR changes.module_id IS NULL
  );

COMMIT;


-- PUT /api/webhooks/{webhookId}
-- =============================

BEGIN ISOLATION LEVEL READ COMMITTED;

-- store.webhooks.lock, as above

-- store.webhooks.change: Change a webhook, if it exists and fulfils the conditions, and return what it has become.
UPDATE webhooks SET url = CAST(%(url)s AS VARCHAR), types = CAST(%(types)s AS JSON), module_ids = CAST(%(module_ids)s AS JSON), active = %(active)s
WHERE
  webhooks.id = CAST(%(id_1)s AS VARCHAR)
RETURNING webhooks.id, webhooks.url, webhooks.types, webhooks.module_ids, webhooks.active, webhooks.secret, webhooks.previous_secret, webhooks.previous_until, webhooks.settled_after, webhooks.change_id, webhooks.failing_since, webhooks.last_status, webhooks.leased_until;

-- store.webhooks.pending (2): Count what waits for a webhook among the next changes, settled or not.
SELECT
  COUNT(*) AS count_1,
  MIN(changes.recorded_at) AS min_1
FROM changes
WHERE
  changes.id IN (
    SELECT
      changes.id
    FROM changes
    WHERE
      (changes.settled_after, changes.id) > (CAST(%(param_1)s AS BIGINT), CAST(%(param_2)s AS BIGINT))
    ORDER BY
      changes.settled_after,
      changes.id
    LIMIT CAST(%(param_3)s AS INT)
  );

COMMIT;


-- GET /api/webhooks/{webhookId}
-- =============================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- store.webhooks.find: Read a webhook.
SELECT
  webhooks.id,
  webhooks.url,
  webhooks.types,
  webhooks.module_ids,
  webhooks.active,
  webhooks.secret,
  webhooks.previous_secret,
  webhooks.previous_until,
  webhooks.settled_after,
  webhooks.change_id,
  webhooks.failing_since,
  webhooks.last_status,
  webhooks.leased_until
FROM webhooks
WHERE
  webhooks.id = CAST(%(id_1)s AS VARCHAR);

-- store.webhooks.pending (2), as above

COMMIT;


-- GET /api/webhooks
-- =================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- store.webhooks.listed: List the webhooks by their ids.
SELECT
  webhooks.id,
  webhooks.url,
  webhooks.types,
  webhooks.module_ids,
  webhooks.active,
  webhooks.secret,
  webhooks.previous_secret,
  webhooks.previous_until,
  webhooks.settled_after,
  webhooks.change_id,
  webhooks.failing_since,
  webhooks.last_status,
  webhooks.leased_until
FROM webhooks
ORDER BY
  webhooks.id;

-- store.webhooks.pending (2), as above

COMMIT;


-- POST /api/webhooks/{webhookId}/secret
-- =====================================

BEGIN ISOLATION LEVEL READ COMMITTED;

-- store.webhooks.lock, as above

-- store.webhooks.change (2): Change a webhook, if it exists and fulfils the conditions, and return what it has
-- become.
UPDATE webhooks SET secret = CAST(%(secret)s AS VARCHAR), previous_secret = CAST(%(previous_secret)s AS VARCHAR), previous_until = CAST(%(previous_until)s AS TIMESTAMPTZ)
WHERE
  webhooks.id = CAST(%(id_1)s AS VARCHAR)
RETURNING webhooks.id, webhooks.url, webhooks.types, webhooks.module_ids, webhooks.active, webhooks.secret, webhooks.previous_secret, webhooks.previous_until, webhooks.settled_after, webhooks.change_id, webhooks.failing_since, webhooks.last_status, webhooks.leased_until;

-- store.webhooks.pending (2), as above

COMMIT;


-- flask progress deliver --once, of nothing wanted
-- ================================================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.webhooks.due: List the webhooks that something settled waits for, that may be told now, and that nobody
-- delivers to.
SELECT
  webhooks.id
FROM webhooks
WHERE
  webhooks.active IS TRUE
  AND (
    webhooks.next_try_at IS NULL
    OR webhooks.next_try_at <= CAST(%(next_try_at_1)s AS TIMESTAMPTZ)
  )
  AND (
    webhooks.leased_until IS NULL
    OR webhooks.leased_until <= CAST(%(leased_until_1)s AS TIMESTAMPTZ)
  )
  AND (
    EXISTS(
      SELECT
        changes.id
      FROM changes
      WHERE
        (changes.settled_after, changes.id) > (webhooks.settled_after, webhooks.change_id)
        AND changes.settled_after < (
          SELECT
            (
              CAST(CAST(PG_SNAPSHOT_XMIN(PG_CURRENT_SNAPSHOT()) AS TEXT) AS BIGINT) + COALESCE((
                SELECT
                  MAX(order_offset)
                FROM arrivals
              ), 0)
            ) AS anon_1
        )
    )
  )
ORDER BY
  webhooks.id;

COMMIT;

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.webhooks.change (3): Change a webhook, if it exists and fulfils the conditions, and return what it has
-- become.
UPDATE webhooks SET leased_by = CAST(%(leased_by)s AS UUID), leased_until = CAST(%(leased_until)s AS TIMESTAMPTZ)
WHERE
  webhooks.id = CAST(%(id_1)s AS VARCHAR)
  AND webhooks.active IS TRUE
  AND (
    webhooks.next_try_at IS NULL
    OR webhooks.next_try_at <= CAST(%(next_try_at_1)s AS TIMESTAMPTZ)
  )
  AND (
    webhooks.leased_until IS NULL
    OR webhooks.leased_until <= CAST(%(leased_until_1)s AS TIMESTAMPTZ)
  )
RETURNING webhooks.id, webhooks.url, webhooks.types, webhooks.module_ids, webhooks.active, webhooks.secret, webhooks.previous_secret, webhooks.previous_until, webhooks.settled_after, webhooks.change_id, webhooks.failing_since, webhooks.last_status, webhooks.leased_until;

COMMIT;

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- changes.queries._first_open, as above

-- changes.queries.feed (3): List the first changes behind a place: those of some types, if any are given, and of some
-- modules or of none.
SELECT
  changes.settled_after,
  changes.id,
  changes.id AS id__1,
  changes.type,
  changes.time,
  changes.recorded_at,
  changes.user_id,
  changes.module_id,
  changes.content_id,
  changes.by_sub,
  changes.by_role,
  changes.data
FROM changes
WHERE
  changes.id IN (
    SELECT
      changes.id
    FROM changes
    WHERE
      (changes.settled_after, changes.id) > (CAST(%(param_1)s AS BIGINT), CAST(%(param_2)s AS BIGINT))
      AND changes.settled_after < CAST(%(settled_after_1)s AS BIGINT)
    ORDER BY
      changes.settled_after,
      changes.id
    LIMIT CAST(%(param_3)s AS INT)
  )
  AND changes.type IN (CAST(%(type_1_1)s AS VARCHAR))
ORDER BY
  changes.settled_after,
  changes.id
LIMIT CAST(%(param_4)s AS INT);

-- changes.queries.feed (2), as above

COMMIT;

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.webhooks.change (4): Change a webhook, if it exists and fulfils the conditions, and return what it has
-- become.
UPDATE webhooks SET settled_after = CAST(%(settled_after)s AS BIGINT), change_id = CAST(%(change_id)s AS BIGINT), leased_until = CAST(%(leased_until)s AS TIMESTAMPTZ)
WHERE
  webhooks.id = CAST(%(id_1)s AS VARCHAR)
  AND webhooks.leased_by = CAST(%(leased_by_1)s AS UUID)
RETURNING webhooks.id, webhooks.url, webhooks.types, webhooks.module_ids, webhooks.active, webhooks.secret, webhooks.previous_secret, webhooks.previous_until, webhooks.settled_after, webhooks.change_id, webhooks.failing_since, webhooks.last_status, webhooks.leased_until;

COMMIT;

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.webhooks.change (5): Change a webhook, if it exists and fulfils the conditions, and return what it has
-- become.
UPDATE webhooks SET leased_by = CAST(%(leased_by)s AS UUID), leased_until = CAST(%(leased_until)s AS TIMESTAMPTZ)
WHERE
  webhooks.id = CAST(%(id_1)s AS VARCHAR)
  AND webhooks.leased_by = CAST(%(leased_by_1)s AS UUID)
RETURNING webhooks.id, webhooks.url, webhooks.types, webhooks.module_ids, webhooks.active, webhooks.secret, webhooks.previous_secret, webhooks.previous_until, webhooks.settled_after, webhooks.change_id, webhooks.failing_since, webhooks.last_status, webhooks.leased_until;

COMMIT;


-- DELETE /api/webhooks/{webhookId}
-- ================================

BEGIN ISOLATION LEVEL READ COMMITTED;

-- store.webhooks.remove: Delete a webhook, if there is one.
DELETE FROM webhooks
WHERE
  webhooks.id = CAST(%(id_1)s AS VARCHAR);

COMMIT;


-- PUT /api/progress/{recordId}/complete
-- =====================================

BEGIN ISOLATION LEVEL READ COMMITTED;

-- statements.find_records: Find the learners and the contents of records by their ids.
SELECT
  progress_record.id,
  progress_record.user_id,
  progress_record.content_id
FROM (
  SELECT
    CAST(record_ids_json.value ->> 0 AS UUID) AS id,
    (
      record_ids_json.value ->> 1
    ) COLLATE "C" AS user_id
  FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(record_ids)s AS VARCHAR) AS JSONB)) AS record_ids_json
) AS record_ids
JOIN LATERAL (
  SELECT
    progress_records.id AS id,
    progress_records.user_id AS user_id,
    progress_records.content_id AS content_id
  FROM progress_records
  WHERE
    progress_records.id = record_ids.id
    AND progress_records.user_id = record_ids.user_id
  LIMIT ALL
  OFFSET 0
) AS progress_record
  ON TRUE
WHERE
  record_ids.user_id IS NOT NULL
UNION ALL
SELECT
  progress_record.id,
  progress_record.user_id,
  progress_record.content_id
FROM (
  SELECT
    CAST(record_ids_json.value ->> 0 AS UUID) AS id,
    (
      record_ids_json.value ->> 1
    ) COLLATE "C" AS user_id
  FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(record_ids)s AS VARCHAR) AS JSONB)) AS record_ids_json
) AS record_ids
JOIN LATERAL (
  SELECT
    progress_records.id AS id,
    progress_records.user_id AS user_id,
    progress_records.content_id AS content_id
  FROM progress_records
  WHERE
    progress_records.id = record_ids.id
  LIMIT ALL
  OFFSET 0
) AS progress_record
  ON TRUE
WHERE
  record_ids.user_id IS NULL;

-- statements.lock_modules_of_contents, as above

-- statements.lock_enrollments_of_contents, as above

-- statements.read, as above

-- statements.store, as above

-- statements.write_changes, as above

COMMIT;


-- GET /api/progress/stats, by an instructor
-- =========================================

-- analytics.overview.page: List the first modules behind an id, or from the start: all modules, or those that an
-- instructor teaches.
SELECT
  listed.id,
  listed.title,
  listed.total_weight,
  listed.total_contents,
  (
    SELECT
      enrollments.last_activity_at
    FROM enrollments
    WHERE
      enrollments.module_id = listed.id
      AND enrollments.status = status.name
      AND enrollments.counted
      AND enrollments.last_activity_at IS NOT NULL
    ORDER BY
      enrollments.last_activity_at DESC,
      enrollments.user_id DESC
    LIMIT CAST(%(param_1)s AS INT)
  ) AS anon_1,
  status.name,
  CAST(COALESCE(SUM(tallies.learners), CAST(%(coalesce_2)s AS INT)) AS BIGINT) AS coalesce_1,
  CAST(COALESCE(SUM(tallies.started), CAST(%(coalesce_4)s AS INT)) AS BIGINT) AS coalesce_3,
  CAST(COALESCE(SUM(tallies.weighted_sum), CAST(%(coalesce_6)s AS INT)) AS BIGINT) AS coalesce_5
FROM (
  SELECT
    modules.id AS id,
    modules.title AS title,
    modules.total_weight AS total_weight,
    modules.total_contents AS total_contents
  FROM modules
  JOIN module_instructors
    ON modules.id = module_instructors.module_id
  WHERE
    module_instructors.user_id = CAST(%(user_id_1)s AS VARCHAR)
    AND modules.id > CAST(%(id_1)s AS VARCHAR)
  ORDER BY
    modules.id
  LIMIT CAST(%(param_2)s AS INT)
) AS listed
JOIN (
  SELECT
    'active' AS name
  UNION ALL
  SELECT
    'paused' AS name
  UNION ALL
  SELECT
    'dropped' AS name
  UNION ALL
  SELECT
    'completed' AS name
) AS status
  ON TRUE
LEFT OUTER JOIN tallies
  ON tallies.module_id = listed.id
  AND tallies.kind IN ('status')
  AND tallies.item = status.name
GROUP BY
  listed.id,
  listed.title,
  listed.total_weight,
  listed.total_contents,
  status.name
ORDER BY
  listed.id;

COMMIT;


-- GET /api/progress/stats/{moduleId}
-- ==================================

-- analytics.queries.statistics: Find the values of a module's statistics by one statement; stalled learners were not
-- active since an instant.
SELECT
  'found' AS kind,
  modules.title AS c0,
  modules.total_weight AS c1,
  modules.total_contents AS c2,
  NULL AS c3,
  NULL AS c4,
  NULL AS c5,
  NULL AS c6,
  NULL AS c7,
  NULL AS c8,
  NULL AS c9,
  NULL AS c10
FROM modules
WHERE
  modules.id = CAST(%(module_id)s AS VARCHAR)
UNION ALL
SELECT
  'content' AS kind,
  contents.id AS c0,
  tallied.started AS c1,
  tallied.completed AS c2,
  tallied.time_spent_seconds AS c3,
  tallied.scored AS c4,
  tallied.score_hundredths AS c5,
  CAST(contents.weight AS BIGINT) AS c6,
  contents.ordinal AS c7,
  contents.title AS c8,
  contents.type AS c9,
  contents.section AS c10
FROM contents
LEFT OUTER JOIN (
  SELECT
    tallies.item AS item,
    CAST(SUM(tallies.started) AS BIGINT) AS started,
    CAST(SUM(tallies.completed) AS BIGINT) AS completed,
    CAST(SUM(tallies.time_spent_seconds) AS BIGINT) AS time_spent_seconds,
    CAST(SUM(tallies.scored) AS BIGINT) AS scored,
    CAST(SUM(tallies.score_hundredths) AS BIGINT) AS score_hundredths
  FROM tallies
  WHERE
    tallies.module_id = CAST(%(module_id)s AS VARCHAR)
    AND tallies.kind IN ('content')
  GROUP BY
    tallies.item
) AS tallied
  ON tallied.item = contents.id
WHERE
  contents.module_id = CAST(%(module_id)s AS VARCHAR) AND NOT contents.retired
UNION ALL
SELECT
  'status' AS kind,
  tallies.item AS c0,
  CAST(SUM(tallies.learners) AS BIGINT) AS c1,
  CAST(SUM(tallies.started) AS BIGINT) AS c2,
  CAST(SUM(tallies.time_spent_seconds) AS BIGINT) AS c3,
  CAST(SUM(tallies.weighted_sum) AS BIGINT) AS c4,
  NULL AS c5,
  NULL AS c6,
  NULL AS c7,
  NULL AS c8,
  NULL AS c9,
  NULL AS c10
FROM tallies
WHERE
  tallies.module_id = CAST(%(module_id)s AS VARCHAR) AND tallies.kind IN ('status')
GROUP BY
  tallies.item
UNION ALL
SELECT
  'percentage' AS kind,
  tallies.item AS c0,
  CAST(SUM(tallies.learners) AS BIGINT) AS c1,
  NULL AS c2,
  NULL AS c3,
  NULL AS c4,
  NULL AS c5,
  NULL AS c6,
  NULL AS c7,
  NULL AS c8,
  NULL AS c9,
  NULL AS c10
FROM tallies
WHERE
  tallies.module_id = CAST(%(module_id)s AS VARCHAR)
  AND tallies.kind IN ('percentage')
GROUP BY
  tallies.item
UNION ALL
SELECT
  'excused' AS kind,
  tallies.item AS c0,
  CAST(SUM(tallies.learners) AS BIGINT) AS c1,
  NULL AS c2,
  NULL AS c3,
  NULL AS c4,
  NULL AS c5,
  NULL AS c6,
  NULL AS c7,
  NULL AS c8,
  NULL AS c9,
  NULL AS c10
FROM tallies
WHERE
  tallies.module_id = CAST(%(module_id)s AS VARCHAR)
  AND tallies.kind IN ('excused')
GROUP BY
  tallies.item
UNION ALL
SELECT
  'stalled' AS kind,
  CAST(SUBSTRING(tallies.item FROM 12) AS VARCHAR) AS c0,
  CAST(SUM(tallies.learners) AS BIGINT) AS c1,
  NULL AS c2,
  NULL AS c3,
  NULL AS c4,
  NULL AS c5,
  NULL AS c6,
  NULL AS c7,
  NULL AS c8,
  NULL AS c9,
  NULL AS c10
FROM tallies
WHERE
  tallies.module_id = CAST(%(module_id)s AS VARCHAR)
  AND tallies.kind IN ('last_week')
  AND tallies.item < (
    SELECT
      CAST(%(week)s AS VARCHAR) AS anon_1
  )
GROUP BY
  CAST(SUBSTRING(tallies.item FROM 12) AS VARCHAR)
UNION ALL
SELECT
  'stalled' AS kind,
  CAST(SUBSTRING(tallies.item FROM 12) AS VARCHAR) AS c0,
  CAST(SUM(tallies.learners) AS BIGINT) AS c1,
  NULL AS c2,
  NULL AS c3,
  NULL AS c4,
  NULL AS c5,
  NULL AS c6,
  NULL AS c7,
  NULL AS c8,
  NULL AS c9,
  NULL AS c10
FROM tallies
WHERE
  tallies.module_id = CAST(%(module_id)s AS VARCHAR)
  AND tallies.kind IN ('last_day')
  AND tallies.item >= (
    SELECT
      CAST(%(week)s AS VARCHAR) AS anon_1
  )
  AND tallies.item < (
    SELECT
      CAST(%(day)s AS VARCHAR) AS anon_2
  )
GROUP BY
  CAST(SUBSTRING(tallies.item FROM 12) AS VARCHAR)
UNION ALL
SELECT
  'stalled' AS kind,
  enrollments.last_content_id AS c0,
  COUNT(*) AS c1,
  NULL AS c2,
  NULL AS c3,
  NULL AS c4,
  NULL AS c5,
  NULL AS c6,
  NULL AS c7,
  NULL AS c8,
  NULL AS c9,
  NULL AS c10
FROM enrollments
WHERE
  enrollments.module_id = CAST(%(module_id)s AS VARCHAR)
  AND enrollments.status IN ('active', 'paused')
  AND enrollments.counted
  AND NOT enrollments.last_is_excused
  AND enrollments.last_activity_at <= (
    SELECT
      CAST(%(since)s AS TIMESTAMPTZ) AS anon_3
  )
  AND enrollments.last_activity_at >= (
    SELECT
      CAST(%(midnight)s AS TIMESTAMPTZ) AS anon_4
  )
GROUP BY
  enrollments.last_content_id;

COMMIT;


-- GET /api/progress/stats/{moduleId}/learners
-- ===========================================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- analytics.queries.module: Find a module.
SELECT
  modules.title,
  modules.total_weight,
  modules.total_contents
FROM modules
WHERE
  modules.id = CAST(%(module_id)s AS VARCHAR);

-- analytics.roster._walk: List the first learners behind a position as they come in the order; None if too many
-- others come before.
SELECT
  anon_1.user_id,
  anon_1.module_id,
  anon_1.status,
  anon_1.enrolled_at,
  anon_1.weighted_sum,
  anon_1.completed_contents,
  anon_1.time_spent_seconds,
  anon_1.completed_at,
  anon_1.last_activity_at,
  anon_1.last_content_id,
  anon_1.enrolled_by_update,
  anon_1.counted,
  anon_1.last_is_excused,
  anon_1.credited
FROM (
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM enrollments
  WHERE
    enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
    AND enrollments.status = CAST(%(status_1)s AS VARCHAR)
    AND enrollments.last_activity_at IS NOT NULL
  ORDER BY
    enrollments.last_activity_at DESC,
    enrollments.user_id DESC
  LIMIT CAST(%(param_1)s AS INT)
) AS anon_1
ORDER BY
  last_activity_at DESC,
  user_id DESC
LIMIT CAST(%(param_2)s AS INT);

-- analytics.roster._walk (2): List the first learners behind a position as they come in the order; None if too many
-- others come before.
SELECT
  anon_1.user_id,
  anon_1.module_id,
  anon_1.status,
  anon_1.enrolled_at,
  anon_1.weighted_sum,
  anon_1.completed_contents,
  anon_1.time_spent_seconds,
  anon_1.completed_at,
  anon_1.last_activity_at,
  anon_1.last_content_id,
  anon_1.enrolled_by_update,
  anon_1.counted,
  anon_1.last_is_excused,
  anon_1.credited
FROM (
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM enrollments
  WHERE
    enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
    AND enrollments.status = CAST(%(status_1)s AS VARCHAR)
    AND enrollments.last_activity_at IS NULL
  ORDER BY
    enrollments.last_activity_at DESC,
    enrollments.user_id DESC
  LIMIT CAST(%(param_1)s AS INT)
) AS anon_1
ORDER BY
  last_activity_at DESC,
  user_id DESC
LIMIT CAST(%(param_2)s AS INT);

COMMIT;


-- GET /api/progress/stats/{moduleId}/learners, filtered
-- =====================================================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- analytics.queries.module, as above

-- analytics.queries.known_contents: Find which of these are contents of a module, retired ones too.
SELECT
  contents.id
FROM contents
WHERE
  contents.module_id = CAST(%(module_id_1)s AS VARCHAR)
  AND contents.id IN (CAST(%(id_1_1)s AS VARCHAR), CAST(%(id_1_2)s AS VARCHAR));

-- analytics.roster.page: List the first learners behind a position, or from the start.
SELECT
  anon_1.user_id,
  anon_1.module_id,
  anon_1.status,
  anon_1.enrolled_at,
  anon_1.weighted_sum,
  anon_1.completed_contents,
  anon_1.time_spent_seconds,
  anon_1.completed_at,
  anon_1.last_activity_at,
  anon_1.last_content_id,
  anon_1.enrolled_by_update,
  anon_1.counted,
  anon_1.last_is_excused,
  anon_1.credited
FROM (
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum + CASE
      WHEN (
        enrollments.status = CAST(%(status_1)s AS VARCHAR)
      )
      THEN CAST(%(param_1)s AS INT)
      ELSE CAST(%(param_2)s AS INT)
    END AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM enrollments
  WHERE
    enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
    AND enrollments.status IN ('active', 'paused')
    AND enrollments.last_content_id = CAST(%(last_content_id_1)s AS VARCHAR)
    AND enrollments.status IN ('active', 'paused')
    AND enrollments.counted
    AND NOT enrollments.last_is_excused
    AND enrollments.last_activity_at <= CAST(%(last_activity_at_1)s AS TIMESTAMPTZ)
    AND (
      EXISTS(
        SELECT
          *
        FROM progress_records
        WHERE
          progress_records.user_id = enrollments.user_id
          AND progress_records.module_id = enrollments.module_id
          AND progress_records.content_id = CAST(%(content_id_1)s AS VARCHAR)
          AND progress_records.excused_at IS NULL
          AND progress_records.completed_at IS NULL
      )
    )
    AND enrollments.user_id IN (CAST(%(user_id_1_1)s AS VARCHAR), CAST(%(user_id_1_2)s AS VARCHAR))
  LIMIT ALL
  OFFSET 0
) AS anon_1
ORDER BY
  anon_1.weighted_sum,
  anon_1.user_id
LIMIT CAST(%(param_3)s AS INT);

COMMIT;


-- GET /api/progress/stats/{moduleId}/learners, of a content
-- =========================================================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- analytics.queries.module, as above

-- analytics.queries.known_contents (2): Find which of these are contents of a module, retired ones too.
SELECT
  contents.id
FROM contents
WHERE
  contents.module_id = CAST(%(module_id_1)s AS VARCHAR)
  AND contents.id IN (CAST(%(id_1_1)s AS VARCHAR));

-- analytics.roster._walk (3): List the first learners behind a position as they come in the order; None if too many
-- others come before.
SELECT
  CASE WHEN (
    anon_1.place <= CAST(%(place_1)s AS INT)
  ) THEN anon_1.user_id END AS user_id,
  anon_1.module_id,
  anon_1.status,
  anon_1.enrolled_at,
  anon_1.weighted_sum,
  anon_1.completed_contents,
  anon_1.time_spent_seconds,
  anon_1.completed_at,
  anon_1.last_activity_at,
  anon_1.last_content_id,
  anon_1.enrolled_by_update,
  anon_1.counted,
  anon_1.last_is_excused,
  anon_1.credited
FROM (
  SELECT
    anon_2.user_id AS user_id,
    anon_2.module_id AS module_id,
    anon_2.status AS status,
    anon_2.enrolled_at AS enrolled_at,
    anon_2.weighted_sum AS weighted_sum,
    anon_2.completed_contents AS completed_contents,
    anon_2.time_spent_seconds AS time_spent_seconds,
    anon_2.completed_at AS completed_at,
    anon_2.last_activity_at AS last_activity_at,
    anon_2.last_content_id AS last_content_id,
    anon_2.enrolled_by_update AS enrolled_by_update,
    anon_2.counted AS counted,
    anon_2.last_is_excused AS last_is_excused,
    anon_2.credited AS credited,
    ROW_NUMBER() OVER (ORDER BY anon_2.weighted_sum, anon_2.user_id) AS place
  FROM (
    SELECT
      anon_3.user_id AS user_id,
      anon_3.module_id AS module_id,
      anon_3.status AS status,
      anon_3.enrolled_at AS enrolled_at,
      anon_3.weighted_sum AS weighted_sum,
      anon_3.completed_contents AS completed_contents,
      anon_3.time_spent_seconds AS time_spent_seconds,
      anon_3.completed_at AS completed_at,
      anon_3.last_activity_at AS last_activity_at,
      anon_3.last_content_id AS last_content_id,
      anon_3.enrolled_by_update AS enrolled_by_update,
      anon_3.counted AS counted,
      anon_3.last_is_excused AS last_is_excused,
      anon_3.credited AS credited
    FROM (
      SELECT
        enrollments.user_id AS user_id,
        enrollments.module_id AS module_id,
        enrollments.status AS status,
        enrollments.enrolled_at AS enrolled_at,
        enrollments.weighted_sum AS weighted_sum,
        enrollments.completed_contents AS completed_contents,
        enrollments.time_spent_seconds AS time_spent_seconds,
        enrollments.completed_at AS completed_at,
        enrollments.last_activity_at AS last_activity_at,
        enrollments.last_content_id AS last_content_id,
        enrollments.enrolled_by_update AS enrolled_by_update,
        enrollments.counted AS counted,
        enrollments.last_is_excused AS last_is_excused,
        enrollments.credited AS credited
      FROM enrollments
      WHERE
        enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
        AND enrollments.status = CAST(%(status_1)s AS VARCHAR)
      ORDER BY
        enrollments.weighted_sum,
        enrollments.user_id
      LIMIT CAST(%(param_1)s AS INT)
    ) AS anon_3
    UNION ALL
    SELECT
      anon_4.user_id AS user_id,
      anon_4.module_id AS module_id,
      anon_4.status AS status,
      anon_4.enrolled_at AS enrolled_at,
      anon_4.weighted_sum AS weighted_sum,
      anon_4.completed_contents AS completed_contents,
      anon_4.time_spent_seconds AS time_spent_seconds,
      anon_4.completed_at AS completed_at,
      anon_4.last_activity_at AS last_activity_at,
      anon_4.last_content_id AS last_content_id,
      anon_4.enrolled_by_update AS enrolled_by_update,
      anon_4.counted AS counted,
      anon_4.last_is_excused AS last_is_excused,
      anon_4.credited AS credited
    FROM (
      SELECT
        enrollments.user_id AS user_id,
        enrollments.module_id AS module_id,
        enrollments.status AS status,
        enrollments.enrolled_at AS enrolled_at,
        enrollments.weighted_sum AS weighted_sum,
        enrollments.completed_contents AS completed_contents,
        enrollments.time_spent_seconds AS time_spent_seconds,
        enrollments.completed_at AS completed_at,
        enrollments.last_activity_at AS last_activity_at,
        enrollments.last_content_id AS last_content_id,
        enrollments.enrolled_by_update AS enrolled_by_update,
        enrollments.counted AS counted,
        enrollments.last_is_excused AS last_is_excused,
        enrollments.credited AS credited
      FROM enrollments
      WHERE
        enrollments.module_id = CAST(%(module_id_2)s AS VARCHAR)
        AND enrollments.status = CAST(%(status_2)s AS VARCHAR)
      ORDER BY
        enrollments.weighted_sum,
        enrollments.user_id
      LIMIT CAST(%(param_2)s AS INT)
    ) AS anon_4
    UNION ALL
    SELECT
      anon_5.user_id AS user_id,
      anon_5.module_id AS module_id,
      anon_5.status AS status,
      anon_5.enrolled_at AS enrolled_at,
      anon_5.weighted_sum AS weighted_sum,
      anon_5.completed_contents AS completed_contents,
      anon_5.time_spent_seconds AS time_spent_seconds,
      anon_5.completed_at AS completed_at,
      anon_5.last_activity_at AS last_activity_at,
      anon_5.last_content_id AS last_content_id,
      anon_5.enrolled_by_update AS enrolled_by_update,
      anon_5.counted AS counted,
      anon_5.last_is_excused AS last_is_excused,
      anon_5.credited AS credited
    FROM (
      SELECT
        enrollments.user_id AS user_id,
        enrollments.module_id AS module_id,
        enrollments.status AS status,
        enrollments.enrolled_at AS enrolled_at,
        enrollments.weighted_sum AS weighted_sum,
        enrollments.completed_contents AS completed_contents,
        enrollments.time_spent_seconds AS time_spent_seconds,
        enrollments.completed_at AS completed_at,
        enrollments.last_activity_at AS last_activity_at,
        enrollments.last_content_id AS last_content_id,
        enrollments.enrolled_by_update AS enrolled_by_update,
        enrollments.counted AS counted,
        enrollments.last_is_excused AS last_is_excused,
        enrollments.credited AS credited
      FROM enrollments
      WHERE
        enrollments.module_id = CAST(%(module_id_3)s AS VARCHAR)
        AND enrollments.status = CAST(%(status_3)s AS VARCHAR)
      ORDER BY
        enrollments.weighted_sum,
        enrollments.user_id
      LIMIT CAST(%(param_3)s AS INT)
    ) AS anon_5
    UNION ALL
    SELECT
      anon_6.user_id AS user_id,
      anon_6.module_id AS module_id,
      anon_6.status AS status,
      anon_6.enrolled_at AS enrolled_at,
      anon_6.weighted_sum AS weighted_sum,
      anon_6.completed_contents AS completed_contents,
      anon_6.time_spent_seconds AS time_spent_seconds,
      anon_6.completed_at AS completed_at,
      anon_6.last_activity_at AS last_activity_at,
      anon_6.last_content_id AS last_content_id,
      anon_6.enrolled_by_update AS enrolled_by_update,
      anon_6.counted AS counted,
      anon_6.last_is_excused AS last_is_excused,
      anon_6.credited AS credited
    FROM (
      SELECT
        enrollments.user_id AS user_id,
        enrollments.module_id AS module_id,
        enrollments.status AS status,
        enrollments.enrolled_at AS enrolled_at,
        enrollments.weighted_sum AS weighted_sum,
        enrollments.completed_contents AS completed_contents,
        enrollments.time_spent_seconds AS time_spent_seconds,
        enrollments.completed_at AS completed_at,
        enrollments.last_activity_at AS last_activity_at,
        enrollments.last_content_id AS last_content_id,
        enrollments.enrolled_by_update AS enrolled_by_update,
        enrollments.counted AS counted,
        enrollments.last_is_excused AS last_is_excused,
        enrollments.credited AS credited
      FROM enrollments
      WHERE
        enrollments.module_id = CAST(%(module_id_4)s AS VARCHAR)
        AND enrollments.status = CAST(%(status_4)s AS VARCHAR)
      ORDER BY
        enrollments.weighted_sum,
        enrollments.user_id
      LIMIT CAST(%(param_4)s AS INT)
    ) AS anon_6
  ) AS anon_2
  ORDER BY
    anon_2.weighted_sum,
    anon_2.user_id
  LIMIT CAST(%(param_5)s AS INT)
) AS anon_1
WHERE
  anon_1.place > CAST(%(place_1)s AS INT)
  OR (
    EXISTS(
      SELECT
        *
      FROM progress_records
      WHERE
        progress_records.user_id = anon_1.user_id
        AND progress_records.module_id = anon_1.module_id
        AND progress_records.content_id = CAST(%(content_id_1)s AS VARCHAR)
        AND progress_records.excused_at IS NULL
        AND progress_records.completed_at IS NULL
    )
  )
ORDER BY
  anon_1.weighted_sum,
  anon_1.user_id
LIMIT CAST(%(param_6)s AS INT);

COMMIT;


-- GET /api/progress/stats/{moduleId}/learners.csv
-- ===============================================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- analytics.queries.module, as above

SELECT set_config('lock_timeout', '10000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- analytics.roster._walk (4): List the first learners behind a position as they come in the order; None if too many
-- others come before.
SELECT
  anon_1.user_id,
  anon_1.module_id,
  anon_1.status,
  anon_1.enrolled_at,
  anon_1.weighted_sum,
  anon_1.completed_contents,
  anon_1.time_spent_seconds,
  anon_1.completed_at,
  anon_1.last_activity_at,
  anon_1.last_content_id,
  anon_1.enrolled_by_update,
  anon_1.counted,
  anon_1.last_is_excused,
  anon_1.credited
FROM (
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM enrollments
  WHERE
    enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
    AND enrollments.status = CAST(%(status_1)s AS VARCHAR)
  ORDER BY
    enrollments.user_id
  LIMIT CAST(%(param_1)s AS INT)
) AS anon_1
ORDER BY
  user_id
LIMIT CAST(%(param_2)s AS INT);

-- analytics.roster._walk (5): List the first learners behind a position as they come in the order; None if too many
-- others come before.
SELECT
  anon_1.user_id,
  anon_1.module_id,
  anon_1.status,
  anon_1.enrolled_at,
  anon_1.weighted_sum,
  anon_1.completed_contents,
  anon_1.time_spent_seconds,
  anon_1.completed_at,
  anon_1.last_activity_at,
  anon_1.last_content_id,
  anon_1.enrolled_by_update,
  anon_1.counted,
  anon_1.last_is_excused,
  anon_1.credited
FROM (
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM enrollments
  WHERE
    enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
    AND enrollments.status = CAST(%(status_1)s AS VARCHAR)
    AND (
      enrollments.user_id
    ) > (
      CAST(%(param_1)s AS VARCHAR)
    )
  ORDER BY
    enrollments.user_id
  LIMIT CAST(%(param_2)s AS INT)
) AS anon_1
ORDER BY
  user_id
LIMIT CAST(%(param_3)s AS INT);

COMMIT;


-- GET /api/progress/stats/{moduleId}/matrix
-- =========================================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- analytics.queries.module, as above

-- analytics.matrix.contents: List the current contents of a module in their order.
SELECT
  contents.id,
  contents.title
FROM contents
WHERE
  contents.module_id = CAST(%(module_id_1)s AS VARCHAR) AND NOT contents.retired
ORDER BY
  contents.ordinal;

-- analytics.roster._walk (6): List the first learners behind a position as they come in the order; None if too many
-- others come before.
SELECT
  anon_1.user_id,
  anon_1.module_id,
  anon_1.status,
  anon_1.enrolled_at,
  anon_1.weighted_sum,
  anon_1.completed_contents,
  anon_1.time_spent_seconds,
  anon_1.completed_at,
  anon_1.last_activity_at,
  anon_1.last_content_id,
  anon_1.enrolled_by_update,
  anon_1.counted,
  anon_1.last_is_excused,
  anon_1.credited
FROM (
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM enrollments
  WHERE
    enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
    AND enrollments.status = CAST(%(status_1)s AS VARCHAR)
  ORDER BY
    enrollments.user_id
  LIMIT CAST(%(param_1)s AS INT)
) AS anon_1
UNION ALL
SELECT
  anon_2.user_id,
  anon_2.module_id,
  anon_2.status,
  anon_2.enrolled_at,
  anon_2.weighted_sum,
  anon_2.completed_contents,
  anon_2.time_spent_seconds,
  anon_2.completed_at,
  anon_2.last_activity_at,
  anon_2.last_content_id,
  anon_2.enrolled_by_update,
  anon_2.counted,
  anon_2.last_is_excused,
  anon_2.credited
FROM (
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM enrollments
  WHERE
    enrollments.module_id = CAST(%(module_id_2)s AS VARCHAR)
    AND enrollments.status = CAST(%(status_2)s AS VARCHAR)
  ORDER BY
    enrollments.user_id
  LIMIT CAST(%(param_2)s AS INT)
) AS anon_2
UNION ALL
SELECT
  anon_3.user_id,
  anon_3.module_id,
  anon_3.status,
  anon_3.enrolled_at,
  anon_3.weighted_sum,
  anon_3.completed_contents,
  anon_3.time_spent_seconds,
  anon_3.completed_at,
  anon_3.last_activity_at,
  anon_3.last_content_id,
  anon_3.enrolled_by_update,
  anon_3.counted,
  anon_3.last_is_excused,
  anon_3.credited
FROM (
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM enrollments
  WHERE
    enrollments.module_id = CAST(%(module_id_3)s AS VARCHAR)
    AND enrollments.status = CAST(%(status_3)s AS VARCHAR)
  ORDER BY
    enrollments.user_id
  LIMIT CAST(%(param_3)s AS INT)
) AS anon_3
UNION ALL
SELECT
  anon_4.user_id,
  anon_4.module_id,
  anon_4.status,
  anon_4.enrolled_at,
  anon_4.weighted_sum,
  anon_4.completed_contents,
  anon_4.time_spent_seconds,
  anon_4.completed_at,
  anon_4.last_activity_at,
  anon_4.last_content_id,
  anon_4.enrolled_by_update,
  anon_4.counted,
  anon_4.last_is_excused,
  anon_4.credited
FROM (
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM enrollments
  WHERE
    enrollments.module_id = CAST(%(module_id_4)s AS VARCHAR)
    AND enrollments.status = CAST(%(status_4)s AS VARCHAR)
  ORDER BY
    enrollments.user_id
  LIMIT CAST(%(param_4)s AS INT)
) AS anon_4
ORDER BY
  user_id
LIMIT CAST(%(param_5)s AS INT);

-- statements.read_records: Read the records under the enrollments of the keys.
SELECT
  progress_record.id,
  progress_record.user_id,
  progress_record.module_id,
  progress_record.content_id,
  progress_record.started_at,
  progress_record.last_activity_at,
  progress_record.furthest_percentage,
  progress_record.time_spent_seconds,
  progress_record.score,
  progress_record.max_score,
  progress_record.position,
  progress_record.position_at,
  progress_record.completed_at,
  progress_record.reached_at,
  progress_record.passed_at,
  progress_record.excused_at
FROM (
  SELECT
    (
      enrollment_keys_json.value ->> 0
    ) COLLATE "C" AS user_id,
    (
      enrollment_keys_json.value ->> 1
    ) COLLATE "C" AS module_id,
    CAST(enrollment_keys_json.value ->> 2 AS TIMESTAMPTZ) AS enrolled_at
  FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(enrollment_keys)s AS VARCHAR) AS JSONB)) AS enrollment_keys_json
) AS enrollment_keys
JOIN LATERAL (
  SELECT
    progress_records.id AS id,
    progress_records.user_id AS user_id,
    progress_records.module_id AS module_id,
    progress_records.content_id AS content_id,
    progress_records.started_at AS started_at,
    progress_records.last_activity_at AS last_activity_at,
    progress_records.furthest_percentage AS furthest_percentage,
    progress_records.time_spent_seconds AS time_spent_seconds,
    progress_records.score AS score,
    progress_records.max_score AS max_score,
    progress_records.position AS position,
    progress_records.position_at AS position_at,
    progress_records.completed_at AS completed_at,
    progress_records.reached_at AS reached_at,
    progress_records.passed_at AS passed_at,
    progress_records.excused_at AS excused_at
  FROM progress_records
  WHERE
    progress_records.user_id = enrollment_keys.user_id
  LIMIT ALL
  OFFSET 0
) AS progress_record
  ON TRUE
WHERE
  CAST(progress_record.module_id AS VARCHAR) = enrollment_keys.module_id;

COMMIT;


-- GET /api/progress/stats/{moduleId}/matrix.csv
-- =============================================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- analytics.queries.module, as above

-- analytics.matrix.contents, as above

SELECT set_config('lock_timeout', '10000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- analytics.roster._walk (6), as above

-- statements.read_records, as above

-- analytics.roster._walk (7): List the first learners behind a position as they come in the order; None if too many
-- others come before.
SELECT
  anon_1.user_id,
  anon_1.module_id,
  anon_1.status,
  anon_1.enrolled_at,
  anon_1.weighted_sum,
  anon_1.completed_contents,
  anon_1.time_spent_seconds,
  anon_1.completed_at,
  anon_1.last_activity_at,
  anon_1.last_content_id,
  anon_1.enrolled_by_update,
  anon_1.counted,
  anon_1.last_is_excused,
  anon_1.credited
FROM (
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM enrollments
  WHERE
    enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
    AND enrollments.status = CAST(%(status_1)s AS VARCHAR)
    AND (
      enrollments.user_id
    ) > (
      CAST(%(param_1)s AS VARCHAR)
    )
  ORDER BY
    enrollments.user_id
  LIMIT CAST(%(param_2)s AS INT)
) AS anon_1
UNION ALL
SELECT
  anon_2.user_id,
  anon_2.module_id,
  anon_2.status,
  anon_2.enrolled_at,
  anon_2.weighted_sum,
  anon_2.completed_contents,
  anon_2.time_spent_seconds,
  anon_2.completed_at,
  anon_2.last_activity_at,
  anon_2.last_content_id,
  anon_2.enrolled_by_update,
  anon_2.counted,
  anon_2.last_is_excused,
  anon_2.credited
FROM (
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM enrollments
  WHERE
    enrollments.module_id = CAST(%(module_id_2)s AS VARCHAR)
    AND enrollments.status = CAST(%(status_2)s AS VARCHAR)
    AND (
      enrollments.user_id
    ) > (
      CAST(%(param_3)s AS VARCHAR)
    )
  ORDER BY
    enrollments.user_id
  LIMIT CAST(%(param_4)s AS INT)
) AS anon_2
UNION ALL
SELECT
  anon_3.user_id,
  anon_3.module_id,
  anon_3.status,
  anon_3.enrolled_at,
  anon_3.weighted_sum,
  anon_3.completed_contents,
  anon_3.time_spent_seconds,
  anon_3.completed_at,
  anon_3.last_activity_at,
  anon_3.last_content_id,
  anon_3.enrolled_by_update,
  anon_3.counted,
  anon_3.last_is_excused,
  anon_3.credited
FROM (
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM enrollments
  WHERE
    enrollments.module_id = CAST(%(module_id_3)s AS VARCHAR)
    AND enrollments.status = CAST(%(status_3)s AS VARCHAR)
    AND (
      enrollments.user_id
    ) > (
      CAST(%(param_5)s AS VARCHAR)
    )
  ORDER BY
    enrollments.user_id
  LIMIT CAST(%(param_6)s AS INT)
) AS anon_3
UNION ALL
SELECT
  anon_4.user_id,
  anon_4.module_id,
  anon_4.status,
  anon_4.enrolled_at,
  anon_4.weighted_sum,
  anon_4.completed_contents,
  anon_4.time_spent_seconds,
  anon_4.completed_at,
  anon_4.last_activity_at,
  anon_4.last_content_id,
  anon_4.enrolled_by_update,
  anon_4.counted,
  anon_4.last_is_excused,
  anon_4.credited
FROM (
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM enrollments
  WHERE
    enrollments.module_id = CAST(%(module_id_4)s AS VARCHAR)
    AND enrollments.status = CAST(%(status_4)s AS VARCHAR)
    AND (
      enrollments.user_id
    ) > (
      CAST(%(param_7)s AS VARCHAR)
    )
  ORDER BY
    enrollments.user_id
  LIMIT CAST(%(param_8)s AS INT)
) AS anon_4
ORDER BY
  user_id
LIMIT CAST(%(param_9)s AS INT);

COMMIT;


-- GET /api/progress/stats/{moduleId}/timeline
-- ===========================================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- analytics.queries.module, as above

-- analytics.queries.days: Add up the tallies of each day from the first to the last; days without activity are left
-- out.
SELECT
  tallies.item,
  CAST(SUM(tallies.learners) AS BIGINT) AS sum_1,
  CAST(SUM(tallies.started) AS BIGINT) AS sum_2,
  CAST(SUM(tallies.completed) AS BIGINT) AS sum_3,
  CAST(SUM(tallies.enrollments_completed) AS BIGINT) AS sum_4,
  CAST(SUM(tallies.time_spent_seconds) AS BIGINT) AS sum_5,
  CAST(SUM(tallies.weighted_sum) AS BIGINT) AS sum_6,
  CAST(SUM(tallies.scored) AS BIGINT) AS sum_7,
  CAST(SUM(tallies.score_hundredths) AS BIGINT) AS sum_8
FROM tallies
WHERE
  tallies.module_id = CAST(%(module_id)s AS VARCHAR)
  AND tallies.kind IN ('day')
  AND tallies.item BETWEEN CAST(%(first)s AS VARCHAR) AND CAST(%(last)s AS VARCHAR)
GROUP BY
  tallies.item;

COMMIT;


-- GET /api/progress/stats/{moduleId}/report
-- =========================================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- analytics.queries.statistics, as above

-- analytics.roster._walk (8): List the first learners behind a position as they come in the order; None if too many
-- others come before.
SELECT
  anon_1.user_id,
  anon_1.module_id,
  anon_1.status,
  anon_1.enrolled_at,
  anon_1.weighted_sum,
  anon_1.completed_contents,
  anon_1.time_spent_seconds,
  anon_1.completed_at,
  anon_1.last_activity_at,
  anon_1.last_content_id,
  anon_1.enrolled_by_update,
  anon_1.counted,
  anon_1.last_is_excused,
  anon_1.credited
FROM (
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM enrollments
  WHERE
    enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
    AND enrollments.status = CAST(%(status_1)s AS VARCHAR)
    AND enrollments.counted
    AND enrollments.last_activity_at IS NOT NULL
    AND enrollments.last_activity_at <= CAST(%(last_activity_at_1)s AS TIMESTAMPTZ)
  ORDER BY
    enrollments.last_activity_at DESC,
    enrollments.user_id DESC
  LIMIT CAST(%(param_1)s AS INT)
) AS anon_1
UNION ALL
SELECT
  anon_2.user_id,
  anon_2.module_id,
  anon_2.status,
  anon_2.enrolled_at,
  anon_2.weighted_sum,
  anon_2.completed_contents,
  anon_2.time_spent_seconds,
  anon_2.completed_at,
  anon_2.last_activity_at,
  anon_2.last_content_id,
  anon_2.enrolled_by_update,
  anon_2.counted,
  anon_2.last_is_excused,
  anon_2.credited
FROM (
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM enrollments
  WHERE
    enrollments.module_id = CAST(%(module_id_2)s AS VARCHAR)
    AND enrollments.status = CAST(%(status_2)s AS VARCHAR)
    AND enrollments.counted
    AND enrollments.last_activity_at IS NOT NULL
    AND enrollments.last_activity_at <= CAST(%(last_activity_at_2)s AS TIMESTAMPTZ)
  ORDER BY
    enrollments.last_activity_at DESC,
    enrollments.user_id DESC
  LIMIT CAST(%(param_2)s AS INT)
) AS anon_2
ORDER BY
  last_activity_at DESC,
  user_id DESC
LIMIT CAST(%(param_3)s AS INT);

-- analytics.roster._walk (9): List the first learners behind a position as they come in the order; None if too many
-- others come before.
SELECT
  anon_1.user_id,
  anon_1.module_id,
  anon_1.status,
  anon_1.enrolled_at,
  anon_1.weighted_sum,
  anon_1.completed_contents,
  anon_1.time_spent_seconds,
  anon_1.completed_at,
  anon_1.last_activity_at,
  anon_1.last_content_id,
  anon_1.enrolled_by_update,
  anon_1.counted,
  anon_1.last_is_excused,
  anon_1.credited
FROM (
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM enrollments
  WHERE
    enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
    AND enrollments.status = CAST(%(status_1)s AS VARCHAR)
    AND enrollments.counted
    AND enrollments.last_activity_at IS NULL
    AND enrollments.enrolled_at <= CAST(%(enrolled_at_1)s AS TIMESTAMPTZ)
  ORDER BY
    enrollments.last_activity_at DESC,
    enrollments.user_id DESC
  LIMIT CAST(%(param_1)s AS INT)
) AS anon_1
UNION ALL
SELECT
  anon_2.user_id,
  anon_2.module_id,
  anon_2.status,
  anon_2.enrolled_at,
  anon_2.weighted_sum,
  anon_2.completed_contents,
  anon_2.time_spent_seconds,
  anon_2.completed_at,
  anon_2.last_activity_at,
  anon_2.last_content_id,
  anon_2.enrolled_by_update,
  anon_2.counted,
  anon_2.last_is_excused,
  anon_2.credited
FROM (
  SELECT
    enrollments.user_id AS user_id,
    enrollments.module_id AS module_id,
    enrollments.status AS status,
    enrollments.enrolled_at AS enrolled_at,
    enrollments.weighted_sum AS weighted_sum,
    enrollments.completed_contents AS completed_contents,
    enrollments.time_spent_seconds AS time_spent_seconds,
    enrollments.completed_at AS completed_at,
    enrollments.last_activity_at AS last_activity_at,
    enrollments.last_content_id AS last_content_id,
    enrollments.enrolled_by_update AS enrolled_by_update,
    enrollments.counted AS counted,
    enrollments.last_is_excused AS last_is_excused,
    enrollments.credited AS credited
  FROM enrollments
  WHERE
    enrollments.module_id = CAST(%(module_id_2)s AS VARCHAR)
    AND enrollments.status = CAST(%(status_2)s AS VARCHAR)
    AND enrollments.counted
    AND enrollments.last_activity_at IS NULL
    AND enrollments.enrolled_at <= CAST(%(enrolled_at_2)s AS TIMESTAMPTZ)
  ORDER BY
    enrollments.last_activity_at DESC,
    enrollments.user_id DESC
  LIMIT CAST(%(param_2)s AS INT)
) AS anon_2
ORDER BY
  last_activity_at DESC,
  user_id DESC
LIMIT CAST(%(param_3)s AS INT);

-- analytics.queries.days, as above

-- analytics.roster.count: Count all learners, by filters that the order of the last activity answers.
SELECT
  CAST(%(param_1)s AS INT) + (
    SELECT
      COUNT(*) AS count_1
    FROM enrollments
    WHERE
      enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
      AND enrollments.status = CAST(%(status_1)s AS VARCHAR)
      AND enrollments.counted
      AND enrollments.last_activity_at IS NULL
      AND enrollments.enrolled_at <= CAST(%(enrolled_at_1)s AS TIMESTAMPTZ)
  ) + (
    SELECT
      COUNT(*) AS count_2
    FROM enrollments
    WHERE
      enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
      AND enrollments.status = CAST(%(status_1)s AS VARCHAR)
      AND enrollments.counted
      AND enrollments.last_activity_at IS NOT NULL
      AND enrollments.last_activity_at <= CAST(%(last_activity_at_1)s AS TIMESTAMPTZ)
  ) + (
    SELECT
      COUNT(*) AS count_3
    FROM enrollments
    WHERE
      enrollments.module_id = CAST(%(module_id_2)s AS VARCHAR)
      AND enrollments.status = CAST(%(status_2)s AS VARCHAR)
      AND enrollments.counted
      AND enrollments.last_activity_at IS NULL
      AND enrollments.enrolled_at <= CAST(%(enrolled_at_2)s AS TIMESTAMPTZ)
  ) + (
    SELECT
      COUNT(*) AS count_4
    FROM enrollments
    WHERE
      enrollments.module_id = CAST(%(module_id_2)s AS VARCHAR)
      AND enrollments.status = CAST(%(status_2)s AS VARCHAR)
      AND enrollments.counted
      AND enrollments.last_activity_at IS NOT NULL
      AND enrollments.last_activity_at <= CAST(%(last_activity_at_2)s AS TIMESTAMPTZ)
  ) AS anon_1;

COMMIT;


-- GET /api/catalog/modules, by an instructor
-- ==========================================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- catalog.queries.modules: List all modules, or the modules that an instructor teaches: id, title, and number of
-- counted contents.
SELECT
  modules.id,
  modules.title,
  modules.total_contents
FROM modules
JOIN module_instructors
  ON modules.id = module_instructors.module_id
WHERE
  module_instructors.user_id = CAST(%(user_id_1)s AS VARCHAR)
ORDER BY
  modules.id;

COMMIT;


-- GET /api/catalog/modules/{moduleId}
-- ===================================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- store.publishing.published, as above

-- store.publishing.published (2), as above

-- store.publishing.published (3), as above

COMMIT;


-- PUT /api/catalog/modules/{moduleId}, other weights
-- ==================================================

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '100', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.publishing._owners, as above

-- store.locks._lock_table, as above

-- store.locks._hold, as above

-- store.publishing.published, as above

-- store.publishing.published (2), as above

-- store.publishing.published (3), as above

-- store.publishing._owners, as above

-- store.publishing._counted_weights, as above

-- store.publishing._rules, as above

-- store.publishing._store, as above

-- store.publishing._store (3), as above

-- store.publishing._store (4), as above

-- store.publishing._store (5), as above

-- statements.write_changes, as above

-- statements.store_contents, as above

-- store.recount.denominators, as above

-- store.publishing._counted_weights, as above

-- store.publishing._rules, as above

-- store.recount.reweigh, as above

-- store.recount._complete, as above

-- store.journal.write_selected, as above

-- store.recount._complete (2), as above

-- store.recount.tallies, as above

-- statements.store_tallies, as above

COMMIT;


-- PUT /api/catalog/modules/{moduleId}, a rule relaxed
-- ===================================================

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '100', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.publishing._owners, as above

-- store.locks._lock_table, as above

-- store.locks._hold, as above

-- store.publishing.published, as above

-- store.publishing.published (2), as above

-- store.publishing.published (3), as above

-- store.publishing._owners, as above

-- store.publishing._counted_weights, as above

-- store.publishing._rules, as above

-- store.publishing._store, as above

-- store.publishing._store (3), as above

-- store.publishing._store (4), as above

-- store.publishing._store (5), as above

-- statements.write_changes, as above

-- statements.store_contents, as above

-- store.recount.denominators, as above

-- store.publishing._counted_weights, as above

-- store.publishing._rules, as above

-- store.recount.completions: Complete the records of a module that fulfil the rule of their content, for all or some
-- contents and learners.
SELECT
  progress_records.content_id,
  CAST(COALESCE(
    SUM(
      CASE
        WHEN (
          (
            NOT progress_records.user_id IN (
              SELECT
                enrollments.user_id
              FROM enrollments
              WHERE
                enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
                AND NOT enrollments.counted
            )
          )
          AND progress_records.excused_at IS NULL
        )
        THEN CAST(%(param_1)s AS INT)
        ELSE CAST(%(param_2)s AS INT)
      END
    ),
    CAST(%(coalesce_1)s AS INT)
  ) AS BIGINT) AS number
FROM progress_records, contents
WHERE
  progress_records.module_id = CAST(%(module_id_2)s AS VARCHAR)
  AND progress_records.content_id = contents.id
  AND progress_records.completed_at IS NULL
  AND progress_records.furthest_percentage >= contents.completion_threshold
  AND (
    contents.passing_score IS NULL
    OR progress_records.score * CAST(%(score_1)s AS BIGINT) >= contents.passing_score * progress_records.max_score
  )
  AND progress_records.content_id IN (
    SELECT
      ids.id
    FROM (
      SELECT
        (
          ids_json.value ->> 0
        ) COLLATE "C" AS id
      FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(ids)s AS VARCHAR) AS JSONB)) AS ids_json
    ) AS ids
  )
GROUP BY
  progress_records.content_id;

-- store.journal.write_selected (3): Write a change of a kind for each of the enrollments or records that the
-- conditions select, as of now.
INSERT INTO changes (
  settled_after,
  type,
  time,
  recorded_at,
  user_id,
  module_id,
  content_id,
  by_sub,
  by_role,
  data,
  is_history
)
SELECT
  GREATEST(
    CAST(CAST(PG_SNAPSHOT_XMAX(PG_CURRENT_SNAPSHOT()) AS TEXT) AS BIGINT) - 1,
    CAST(CAST(PG_CURRENT_XACT_ID() AS TEXT) AS BIGINT)
  ) + COALESCE((
    SELECT
      MAX(order_offset)
    FROM arrivals
  ), 0) AS settled_after,
  CAST(%(param_1)s AS VARCHAR) AS type,
  CAST(%(param_2)s AS TIMESTAMPTZ) AS time,
  CAST(%(param_3)s AS TIMESTAMPTZ) AS recorded_at,
  progress_records.user_id AS user_id,
  progress_records.module_id AS module_id,
  progress_records.content_id AS content_id,
  CAST(%(param_4)s AS VARCHAR) AS by_sub,
  CAST(%(param_5)s AS VARCHAR) AS by_role,
  CAST(JSON_BUILD_OBJECT(
    'scorePercentage',
    (
      (
        progress_records.score * CAST(%(score_1)s AS BIGINT)
      ) / progress_records.max_score
    ) / CAST(100.0 AS DECIMAL)
  ) AS TEXT) AS data,
  TRUE AS is_history
FROM progress_records, contents
WHERE
  progress_records.module_id = CAST(%(module_id_1)s AS VARCHAR)
  AND progress_records.content_id = contents.id
  AND progress_records.completed_at IS NULL
  AND progress_records.furthest_percentage >= contents.completion_threshold
  AND (
    contents.passing_score IS NULL
    OR progress_records.score * CAST(%(score_2)s AS BIGINT) >= contents.passing_score * progress_records.max_score
  )
  AND progress_records.content_id IN (
    SELECT
      ids.id
    FROM (
      SELECT
        (
          ids_json.value ->> 0
        ) COLLATE "C" AS id
      FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(ids)s AS VARCHAR) AS JSONB)) AS ids_json
    ) AS ids
  )
ORDER BY
  user_id,
  content_id;

-- store.recount.completions (2): Complete the records of a module that fulfil the rule of their content, for all or
-- some contents and learners.
UPDATE progress_records SET progress_percentage = CAST(%(progress_percentage)s AS SMALLINT), completed_at = CAST(%(completed_at)s AS TIMESTAMPTZ)
FROM contents
WHERE
  progress_records.module_id = CAST(%(module_id_1)s AS VARCHAR)
  AND progress_records.content_id = contents.id
  AND progress_records.completed_at IS NULL
  AND progress_records.furthest_percentage >= contents.completion_threshold
  AND (
    contents.passing_score IS NULL
    OR progress_records.score * CAST(%(score_1)s AS BIGINT) >= contents.passing_score * progress_records.max_score
  )
  AND progress_records.content_id IN (
    SELECT
      ids.id
    FROM (
      SELECT
        (
          ids_json.value ->> 0
        ) COLLATE "C" AS id
      FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(ids)s AS VARCHAR) AS JSONB)) AS ids_json
    ) AS ids
  );

-- store.recount.totals (2): Recount the totals of all or some of a module's enrollments, and complete the enrollments
-- that are complete.
UPDATE enrollments SET weighted_sum = counted.weighted_sum, completed_contents = counted.completed_contents
FROM (
  SELECT
    dated.user_id AS user_id,
    dated.weighted_sum AS weighted_sum,
    dated.completed_contents AS completed_contents,
    dated.time_spent_seconds AS time_spent_seconds,
    dated.enrolled_at AS enrolled_at,
    dated.last_activity_at AS last_activity_at,
    dated.last_content_id AS last_content_id,
    EXISTS(
      SELECT
        progress_records.id
      FROM progress_records
      WHERE
        progress_records.user_id = dated.user_id
        AND progress_records.content_id = dated.last_content_id
        AND progress_records.excused_at IS NOT NULL
    ) AS last_is_excused
  FROM (
    SELECT
      enrollments.user_id AS user_id,
      CAST(COALESCE(summed.weighted_sum, CAST(%(coalesce_1)s AS INT)) AS BIGINT) AS weighted_sum,
      CAST(COALESCE(summed.completed_contents, CAST(%(coalesce_2)s AS INT)) AS BIGINT) AS completed_contents,
      CAST(COALESCE(summed.time_spent_seconds, CAST(%(coalesce_3)s AS INT)) AS BIGINT) AS time_spent_seconds,
      CASE
        WHEN (
          enrollments.enrolled_by_update AND summed.started_at < enrollments.enrolled_at
        )
        THEN summed.started_at
        ELSE enrollments.enrolled_at
      END AS enrolled_at,
      summed.last_activity_at AS last_activity_at,
      CASE
        WHEN (
          summed.last_activity_at IS NULL
        )
        THEN NULL
        WHEN (
          EXISTS(
            SELECT
              progress_records.id
            FROM progress_records
            WHERE
              progress_records.user_id = enrollments.user_id
              AND (
                progress_records.module_id || ''
              ) = CAST(%(param_1)s AS VARCHAR)
              AND progress_records.last_activity_at = summed.last_activity_at
              AND progress_records.content_id = enrollments.last_content_id
          )
        )
        THEN enrollments.last_content_id
        ELSE (
          SELECT
            MAX(progress_records.content_id) AS max_1
          FROM progress_records
          WHERE
            progress_records.user_id = enrollments.user_id
            AND (
              progress_records.module_id || ''
            ) = CAST(%(param_1)s AS VARCHAR)
            AND progress_records.last_activity_at = summed.last_activity_at
        )
      END AS last_content_id
    FROM enrollments
    LEFT OUTER JOIN (
      SELECT
        progress_records.user_id AS user_id,
        SUM(
          CASE
            WHEN NOT contents.retired
            THEN CAST(contents.weight AS BIGINT) * progress_records.progress_percentage
            ELSE CAST(%(param_2)s AS INT)
          END
        ) AS weighted_sum,
        SUM(
          CASE
            WHEN (
              NOT contents.retired
              AND contents.weight > CAST(%(weight_1)s AS SMALLINT)
              AND (
                progress_records.completed_at IS NOT NULL
                OR progress_records.excused_at IS NOT NULL
              )
            )
            THEN CAST(%(param_3)s AS INT)
            ELSE CAST(%(param_4)s AS INT)
          END
        ) AS completed_contents,
        SUM(progress_records.time_spent_seconds) AS time_spent_seconds,
        MIN(progress_records.started_at) AS started_at,
        MAX(progress_records.last_activity_at) AS last_activity_at
      FROM progress_records
      JOIN contents
        ON contents.id = progress_records.content_id
      WHERE
        progress_records.module_id = CAST(%(module_id_1)s AS VARCHAR)
      GROUP BY
        progress_records.user_id
    ) AS summed
      ON summed.user_id = enrollments.user_id
    WHERE
      enrollments.module_id = CAST(%(module_id_2)s AS VARCHAR)
  ) AS dated
) AS counted
WHERE
  enrollments.module_id = CAST(%(module_id_3)s AS VARCHAR)
  AND enrollments.user_id = counted.user_id
  AND (
    enrollments.weighted_sum IS DISTINCT FROM counted.weighted_sum
    OR enrollments.completed_contents IS DISTINCT FROM counted.completed_contents
  );

-- store.recount._complete, as above

-- store.journal.write_selected, as above

-- store.recount._complete (2), as above

-- store.recount.tallies, as above

-- statements.store_tallies, as above

COMMIT;


-- GET /api/enrollments/{userId}/{moduleId}
-- ========================================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- catalog.queries.enrollment: Find an enrollment and its module's denominators.
SELECT
  modules.total_weight,
  modules.total_contents,
  enrollments.user_id,
  enrollments.module_id,
  enrollments.status,
  enrollments.enrolled_at,
  enrollments.weighted_sum,
  enrollments.completed_contents,
  enrollments.time_spent_seconds,
  enrollments.completed_at,
  enrollments.last_activity_at,
  enrollments.last_content_id,
  enrollments.enrolled_by_update,
  enrollments.counted,
  enrollments.last_is_excused,
  enrollments.credited
FROM modules
JOIN enrollments
  ON enrollments.module_id = modules.id
WHERE
  enrollments.user_id = CAST(%(user_id_1)s AS VARCHAR)
  AND enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR);

COMMIT;


-- PUT /api/enrollments/{userId}/{moduleId}, no longer counted
-- ===========================================================

BEGIN ISOLATION LEVEL READ COMMITTED;

-- statements.lock_modules: Share the locks of the modules of the enrollment keys.
SELECT
  locked.module_id
FROM (
  SELECT
    counted.module_id AS module_id,
    CASE
      WHEN (
        counted.number <= 50
      )
      THEN CAST(PG_ADVISORY_XACT_LOCK_SHARED(HASHTEXTEXTENDED(counted.module_id, 0)) AS VARCHAR)
    END AS lock
  FROM (
    SELECT
      ordered.module_id AS module_id,
      COUNT(*) OVER () AS number
    FROM (
      SELECT DISTINCT
        modules.module_id COLLATE "C" AS module_id
      FROM (
        SELECT
          enrollment_keys.module_id AS module_id
        FROM (
          SELECT
            (
              enrollment_keys_json.value ->> 0
            ) COLLATE "C" AS user_id,
            (
              enrollment_keys_json.value ->> 1
            ) COLLATE "C" AS module_id,
            CAST(enrollment_keys_json.value ->> 2 AS TIMESTAMPTZ) AS enrolled_at
          FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(enrollment_keys)s AS VARCHAR) AS JSONB)) AS enrollment_keys_json
        ) AS enrollment_keys
      ) AS modules
      ORDER BY
        module_id
    ) AS ordered
  ) AS counted
) AS locked;

-- statements.lock_enrollments: Lock the enrollments of the keys, make those that are missing, and return the keys of
-- the new ones.
INSERT INTO enrollments (
  user_id,
  module_id,
  status,
  enrolled_at,
  enrolled_by_update,
  counted,
  weighted_sum,
  completed_contents,
  time_spent_seconds
)
SELECT
  learners.user_id AS user_id,
  learners.module_id AS module_id,
  CAST(%(param_1)s AS VARCHAR) AS status,
  learners.enrolled_at AS enrolled_at,
  %(param_2)s AS enrolled_by_update,
  TRUE AS counted,
  CAST(%(param_3)s AS INT) AS weighted_sum,
  CAST(%(param_4)s AS INT) AS completed_contents,
  CAST(%(param_5)s AS INT) AS time_spent_seconds
FROM (
  SELECT
    enrollment_keys.user_id AS user_id,
    enrollment_keys.module_id AS module_id,
    enrollment_keys.enrolled_at AS enrolled_at
  FROM (
    SELECT
      (
        enrollment_keys_json.value ->> 0
      ) COLLATE "C" AS user_id,
      (
        enrollment_keys_json.value ->> 1
      ) COLLATE "C" AS module_id,
      CAST(enrollment_keys_json.value ->> 2 AS TIMESTAMPTZ) AS enrolled_at
    FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(enrollment_keys)s AS VARCHAR) AS JSONB)) AS enrollment_keys_json
  ) AS enrollment_keys
  WHERE
    enrollment_keys.module_id IN (
      SELECT
        modules.id
      FROM modules
    )
) AS learners
WHERE
  TRUE
ORDER BY
  learners.user_id,
  learners.module_id ON CONFLICT(user_id, module_id) DO UPDATE SET status = enrollments.status
WHERE
  FALSE
RETURNING enrollments.user_id, enrollments.module_id;

-- statements.read_enrollments: Read the enrollments of the keys, each with its module's denominators.
SELECT
  modules.total_weight,
  modules.total_contents,
  enrollments.user_id,
  enrollments.module_id,
  enrollments.status,
  enrollments.enrolled_at,
  enrollments.weighted_sum,
  enrollments.completed_contents,
  enrollments.time_spent_seconds,
  enrollments.completed_at,
  enrollments.last_activity_at,
  enrollments.last_content_id,
  enrollments.enrolled_by_update,
  enrollments.counted,
  enrollments.last_is_excused,
  enrollments.credited
FROM modules
JOIN enrollments
  ON enrollments.module_id = modules.id
JOIN (
  SELECT
    (
      enrollment_keys_json.value ->> 0
    ) COLLATE "C" AS user_id,
    (
      enrollment_keys_json.value ->> 1
    ) COLLATE "C" AS module_id,
    CAST(enrollment_keys_json.value ->> 2 AS TIMESTAMPTZ) AS enrolled_at
  FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(enrollment_keys)s AS VARCHAR) AS JSONB)) AS enrollment_keys_json
) AS enrollment_keys
  ON enrollments.user_id = enrollment_keys.user_id
  AND enrollments.module_id = enrollment_keys.module_id;

-- statements.read_records, as above

-- statements.read_days: Read the days of activity under the enrollments of the keys.
SELECT
  activity_days.user_id,
  activity_days.module_id,
  activity_days.day,
  activity_days.time_spent_seconds
FROM activity_days
JOIN (
  SELECT
    (
      enrollment_keys_json.value ->> 0
    ) COLLATE "C" AS user_id,
    (
      enrollment_keys_json.value ->> 1
    ) COLLATE "C" AS module_id,
    CAST(enrollment_keys_json.value ->> 2 AS TIMESTAMPTZ) AS enrolled_at
  FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(enrollment_keys)s AS VARCHAR) AS JSONB)) AS enrollment_keys_json
) AS enrollment_keys
  ON activity_days.user_id = enrollment_keys.user_id
  AND activity_days.module_id = enrollment_keys.module_id;

-- statements.store, as above

-- statements.write_changes, as above

COMMIT;


-- GET /api/progress/{userId}/export
-- =================================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- progress.queries.dashboard, as above

-- progress.queries.line_dates: List as of when imported lines have told the fields of a learner's enrollments.
SELECT
  imported_enrollments.user_id,
  imported_enrollments.module_id,
  imported_enrollments.status_told_at,
  imported_enrollments.enrolled_at_told_at,
  imported_enrollments.counted_told_at,
  imported_enrollments.completed_at_told_at
FROM imported_enrollments
WHERE
  imported_enrollments.user_id = CAST(%(user_id_1)s AS VARCHAR)
ORDER BY
  imported_enrollments.module_id;

-- progress.queries.records: List all records of a learner by their start, of retired contents too, each with the
-- content's title.
SELECT
  contents.title,
  progress_records.id,
  progress_records.user_id,
  progress_records.module_id,
  progress_records.content_id,
  progress_records.started_at,
  progress_records.last_activity_at,
  progress_records.furthest_percentage,
  progress_records.time_spent_seconds,
  progress_records.score,
  progress_records.max_score,
  progress_records.position,
  progress_records.position_at,
  progress_records.completed_at,
  progress_records.reached_at,
  progress_records.passed_at,
  progress_records.excused_at
FROM contents
JOIN progress_records
  ON progress_records.content_id = contents.id
WHERE
  progress_records.user_id = CAST(%(user_id_1)s AS VARCHAR)
ORDER BY
  progress_records.started_at,
  progress_records.id;

-- progress.queries.activity_days: List a learner's days of activity.
SELECT
  activity_days.user_id,
  activity_days.module_id,
  activity_days.day,
  activity_days.time_spent_seconds
FROM activity_days
WHERE
  activity_days.user_id = CAST(%(user_id_1)s AS VARCHAR)
ORDER BY
  activity_days.day,
  activity_days.module_id;

-- progress.queries.sessions: List the sessions of a learner that are still known.
SELECT
  sessions.user_id,
  sessions.content_id,
  sessions.session,
  sessions.time_spent_seconds,
  sessions.received_at
FROM sessions
WHERE
  sessions.user_id = CAST(%(user_id_1)s AS VARCHAR)
ORDER BY
  sessions.received_at,
  sessions.content_id,
  sessions.session;

-- progress.queries.changes: List what happened to a learner, and to those who were merged into the learner, in the
-- order of recording.
SELECT
  changes.id,
  changes.type,
  changes.time,
  changes.recorded_at,
  changes.user_id,
  changes.module_id,
  changes.content_id,
  changes.by_sub,
  changes.by_role,
  changes.data
FROM changes
WHERE
  changes.user_id = CAST(%(user_id_1)s AS VARCHAR)
  OR type = 'learner.merged'
  AND changes.data = CAST(%(data_1)s AS VARCHAR)
ORDER BY
  changes.id;

-- progress.queries.taught_modules: List the modules that a user teaches.
SELECT
  modules.id,
  modules.title
FROM modules
JOIN module_instructors
  ON modules.id = module_instructors.module_id
WHERE
  module_instructors.user_id = CAST(%(user_id_1)s AS VARCHAR)
ORDER BY
  modules.id;

-- progress.queries.stored_answers: List the stored answers that a user got, and those that name the user.
SELECT
  stored_answers.caller_id,
  stored_answers.key,
  stored_answers.fingerprint,
  stored_answers.status,
  stored_answers.body,
  stored_answers.learner_id,
  stored_answers.stored_at
FROM stored_answers
WHERE
  stored_answers.caller_id = CAST(%(caller_id_1)s AS VARCHAR)
  OR stored_answers.learner_id = CAST(%(learner_id_1)s AS VARCHAR)
  OR stored_answers.learner_id IS NULL
  AND pg_catalog.position(stored_answers.body, %(position_1)s) > CAST(%(position_2)s AS INT)
ORDER BY
  stored_answers.stored_at,
  stored_answers.key;

COMMIT;


-- PATCH /api/progress/{recordId}
-- ==============================

BEGIN ISOLATION LEVEL READ COMMITTED;

-- store.corrections.correct: Replace values of a record (see `calculations.correct`), of a learner if the caller
-- knows whose it is.
SELECT
  progress_records.user_id,
  progress_records.module_id,
  progress_records.content_id
FROM progress_records
WHERE
  progress_records.id = CAST(%(id_1)s AS UUID);

-- statements.lock_modules, as above

-- statements.lock_known_enrollments: Lock those enrollments of the keys that exist.
SELECT
  modules.total_weight,
  modules.total_contents,
  enrollments.user_id,
  enrollments.module_id,
  enrollments.status,
  enrollments.enrolled_at,
  enrollments.weighted_sum,
  enrollments.completed_contents,
  enrollments.time_spent_seconds,
  enrollments.completed_at,
  enrollments.last_activity_at,
  enrollments.last_content_id,
  enrollments.enrolled_by_update,
  enrollments.counted,
  enrollments.last_is_excused,
  enrollments.credited
FROM modules
JOIN enrollments
  ON enrollments.module_id = modules.id
JOIN (
  SELECT
    (
      enrollment_keys_json.value ->> 0
    ) COLLATE "C" AS user_id,
    (
      enrollment_keys_json.value ->> 1
    ) COLLATE "C" AS module_id,
    CAST(enrollment_keys_json.value ->> 2 AS TIMESTAMPTZ) AS enrolled_at
  FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(enrollment_keys)s AS VARCHAR) AS JSONB)) AS enrollment_keys_json
) AS enrollment_keys
  ON enrollments.user_id = enrollment_keys.user_id
  AND enrollments.module_id = enrollment_keys.module_id
ORDER BY
  enrollments.user_id,
  enrollments.module_id   FOR UPDATE OF enrollments;

-- statements.read_records, as above

-- statements.read_days, as above

-- statements.read_sessions_of_records: Read the sessions of the records under the enrollments of the keys.
SELECT
  session.user_id,
  session.content_id,
  session.session,
  session.time_spent_seconds,
  session.received_at
FROM (
  SELECT
    (
      enrollment_keys_json.value ->> 0
    ) COLLATE "C" AS user_id,
    (
      enrollment_keys_json.value ->> 1
    ) COLLATE "C" AS module_id,
    CAST(enrollment_keys_json.value ->> 2 AS TIMESTAMPTZ) AS enrolled_at
  FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(enrollment_keys)s AS VARCHAR) AS JSONB)) AS enrollment_keys_json
) AS enrollment_keys
JOIN LATERAL (
  SELECT
    progress_records.user_id AS user_id,
    progress_records.module_id AS module_id,
    progress_records.content_id AS content_id
  FROM progress_records
  WHERE
    progress_records.user_id = enrollment_keys.user_id
  LIMIT ALL
  OFFSET 0
) AS progress_record
  ON TRUE
JOIN LATERAL (
  SELECT
    sessions.user_id AS user_id,
    sessions.content_id AS content_id,
    sessions.session AS session,
    sessions.time_spent_seconds AS time_spent_seconds,
    sessions.received_at AS received_at
  FROM sessions
  WHERE
    sessions.user_id = progress_record.user_id
    AND sessions.content_id = progress_record.content_id
  LIMIT ALL
  OFFSET 0
) AS session
  ON TRUE
WHERE
  CAST(progress_record.module_id AS VARCHAR) = enrollment_keys.module_id;

-- statements.read_contents: Read the rules of the contents of the modules of the keys, retired contents too.
SELECT
  contents.id,
  contents.module_id,
  contents.weight,
  contents.completion_threshold,
  contents.passing_score,
  contents.retired
FROM contents
WHERE
  contents.module_id IN (
    SELECT
      enrollment_keys.module_id
    FROM (
      SELECT
        (
          enrollment_keys_json.value ->> 0
        ) COLLATE "C" AS user_id,
        (
          enrollment_keys_json.value ->> 1
        ) COLLATE "C" AS module_id,
        CAST(enrollment_keys_json.value ->> 2 AS TIMESTAMPTZ) AS enrolled_at
      FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(enrollment_keys)s AS VARCHAR) AS JSONB)) AS enrollment_keys_json
    ) AS enrollment_keys
  );

-- store.corrections.correct, as above

-- statements.store, as above

-- statements.write_changes, as above

COMMIT;


-- PUT /api/progress/{userId}/{moduleId}/{contentId}/excuse
-- ========================================================

BEGIN ISOLATION LEVEL READ COMMITTED;

-- statements.lock_modules, as above

-- statements.lock_enrollments, as above

-- statements.read_enrollments, as above

-- statements.read_records, as above

-- statements.read_days, as above

-- statements.read_sessions_of_records, as above

-- statements.read_contents, as above

-- statements.store, as above

-- statements.write_changes, as above

COMMIT;


-- DELETE /api/progress/{userId}/{moduleId}/{contentId}/excuse
-- ===========================================================

BEGIN ISOLATION LEVEL READ COMMITTED;

-- statements.lock_modules, as above

-- statements.lock_known_enrollments, as above

-- statements.read_records, as above

-- statements.read_days, as above

-- statements.read_sessions_of_records, as above

-- statements.read_contents, as above

-- statements.delete_records: Delete records, and their sessions with them.
DELETE FROM progress_records
WHERE
  (progress_records.user_id, progress_records.content_id) IN (
    SELECT
      records.user_id,
      records.content_id
    FROM (
      SELECT
        CAST(records_json.value ->> 0 AS UUID) AS id,
        (
          records_json.value ->> 1
        ) COLLATE "C" AS user_id,
        (
          records_json.value ->> 2
        ) COLLATE "C" AS module_id,
        (
          records_json.value ->> 3
        ) COLLATE "C" AS content_id,
        CAST(records_json.value ->> 4 AS TIMESTAMPTZ) AS started_at,
        CAST(records_json.value ->> 5 AS TIMESTAMPTZ) AS last_activity_at,
        CAST(records_json.value ->> 6 AS SMALLINT) AS furthest_percentage,
        CAST(records_json.value ->> 7 AS BIGINT) AS time_spent_seconds,
        CAST(records_json.value ->> 8 AS BIGINT) AS score,
        CAST(records_json.value ->> 9 AS BIGINT) AS max_score,
        records_json.value ->> 10 AS position,
        CAST(records_json.value ->> 11 AS TIMESTAMPTZ) AS position_at,
        CAST(records_json.value ->> 12 AS TIMESTAMPTZ) AS completed_at,
        CAST(records_json.value ->> 13 AS TIMESTAMPTZ) AS reached_at,
        CAST(records_json.value ->> 14 AS TIMESTAMPTZ) AS passed_at,
        CAST(records_json.value ->> 15 AS TIMESTAMPTZ) AS excused_at,
        CAST(records_json.value ->> 16 AS SMALLINT) AS progress_percentage
      FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(records)s AS VARCHAR) AS JSONB)) AS records_json
    ) AS records
  );

-- statements.store, as above

-- statements.write_changes, as above

COMMIT;


-- DELETE /api/progress/{userId}/{moduleId}/{contentId}
-- ====================================================

BEGIN ISOLATION LEVEL READ COMMITTED;

-- statements.lock_modules, as above

-- statements.lock_known_enrollments, as above

-- statements.read_records, as above

-- statements.read_days, as above

-- statements.read_sessions_of_records, as above

-- statements.read_contents, as above

-- statements.delete_records, as above

-- statements.store, as above

-- statements.write_changes, as above

COMMIT;


-- POST /api/progress/{userId}/merge
-- =================================

BEGIN ISOLATION LEVEL READ COMMITTED;

-- statements.enrolled_modules: List the modules in which a learner is enrolled.
SELECT
  enrollments.module_id
FROM enrollments
WHERE
  enrollments.user_id = CAST(%(user_id)s AS VARCHAR);

-- statements.lock_modules, as above

-- statements.lock_known_enrollments, as above

-- statements.lock_enrollments, as above

-- statements.read_enrollments, as above

-- statements.read_records, as above

-- statements.read_days, as above

-- statements.read_sessions_of_records, as above

-- statements.read_contents, as above

-- store.locks._hold, as above

-- store.locks._hold, as above

-- statements.enrolled_modules, as above

-- store.journal.rename: Give another learner what the journal tells of a learner and of who was merged into the
-- learner; keep erasures.
UPDATE changes SET by_sub = CAST(%(by_sub)s AS VARCHAR)
WHERE
  by_role <> 'service'
  AND by_sub <> COALESCE(user_id, '')
  AND changes.by_sub = CAST(%(by_sub_1)s AS VARCHAR);

-- store.journal.rename (2): Give another learner what the journal tells of a learner and of who was merged into the
-- learner; keep erasures.
UPDATE changes SET data = CAST(%(data)s AS VARCHAR)
WHERE
  type = 'learner.merged'
  AND changes.data = CAST(%(data_1)s AS VARCHAR)
  AND changes.user_id <> CAST(%(user_id_1)s AS VARCHAR);

-- store.journal.rename (3): Give another learner what the journal tells of a learner and of who was merged into the
-- learner; keep erasures.
UPDATE changes SET user_id = CAST(%(user_id)s AS VARCHAR), by_sub = CASE
  WHEN (
    changes.by_sub = CAST(%(by_sub_1)s AS VARCHAR)
  )
  THEN CAST(%(param_1)s AS VARCHAR)
  ELSE changes.by_sub
END
WHERE
  changes.user_id = CAST(%(user_id_1)s AS VARCHAR)
  AND (
    NOT changes.type IN (CAST(%(type_1_1)s AS VARCHAR), CAST(%(type_1_2)s AS VARCHAR))
  );

-- statements.read_line_dates: Read as of when imported lines have told the fields of the enrollments of the keys.
SELECT
  imported_enrollments.user_id,
  imported_enrollments.module_id,
  imported_enrollments.status_told_at,
  imported_enrollments.enrolled_at_told_at,
  imported_enrollments.counted_told_at,
  imported_enrollments.completed_at_told_at
FROM imported_enrollments
JOIN (
  SELECT
    (
      enrollment_keys_json.value ->> 0
    ) COLLATE "C" AS user_id,
    (
      enrollment_keys_json.value ->> 1
    ) COLLATE "C" AS module_id,
    CAST(enrollment_keys_json.value ->> 2 AS TIMESTAMPTZ) AS enrolled_at
  FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(enrollment_keys)s AS VARCHAR) AS JSONB)) AS enrollment_keys_json
) AS enrollment_keys
  ON imported_enrollments.user_id = enrollment_keys.user_id
  AND imported_enrollments.module_id = enrollment_keys.module_id;

-- statements.delete_records, as above

-- statements.delete_days: Delete days of activity.
DELETE FROM activity_days
WHERE
  (activity_days.user_id, activity_days.module_id, activity_days.day) IN (
    SELECT
      days.user_id,
      days.module_id,
      days.day
    FROM (
      SELECT
        (
          days_json.value ->> 0
        ) COLLATE "C" AS user_id,
        (
          days_json.value ->> 1
        ) COLLATE "C" AS module_id,
        CAST(days_json.value ->> 2 AS DATE) AS day,
        CAST(days_json.value ->> 3 AS BIGINT) AS time_spent_seconds
      FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(days)s AS VARCHAR) AS JSONB)) AS days_json
    ) AS days
  );

-- statements.delete_enrollments: Delete the enrollments of the keys.
DELETE FROM enrollments
WHERE
  (enrollments.user_id, enrollments.module_id) IN (
    SELECT
      enrollment_keys.user_id,
      enrollment_keys.module_id
    FROM (
      SELECT
        (
          enrollment_keys_json.value ->> 0
        ) COLLATE "C" AS user_id,
        (
          enrollment_keys_json.value ->> 1
        ) COLLATE "C" AS module_id,
        CAST(enrollment_keys_json.value ->> 2 AS TIMESTAMPTZ) AS enrolled_at
      FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(enrollment_keys)s AS VARCHAR) AS JSONB)) AS enrollment_keys_json
    ) AS enrollment_keys
  );

-- statements.store, as above

-- statements.write_changes, as above

-- web.idempotency.forget: Delete the answers to a user, and those that name that user.
DELETE FROM stored_answers
WHERE
  stored_answers.caller_id = CAST(%(caller_id_1)s AS VARCHAR)
  OR stored_answers.learner_id = CAST(%(learner_id_1)s AS VARCHAR)
  OR stored_answers.learner_id IS NULL
  AND pg_catalog.position(stored_answers.body, %(position_1)s) > CAST(%(position_2)s AS INT);

COMMIT;


-- DELETE /api/enrollments/{userId}/{moduleId}
-- ===========================================

BEGIN ISOLATION LEVEL READ COMMITTED;

-- statements.lock_modules, as above

-- statements.lock_known_enrollments, as above

-- statements.read_records, as above

-- statements.read_days, as above

-- statements.read_sessions_of_records, as above

-- statements.read_contents, as above

-- statements.delete_enrollments, as above

-- statements.store, as above

-- statements.write_changes, as above

-- store.corrections.withdraw: Delete an enrollment with all that is recorded under it, and end its history.
UPDATE changes SET is_history = %(is_history)s
WHERE
  changes.user_id = CAST(%(user_id_1)s AS VARCHAR)
  AND changes.module_id = CAST(%(module_id_1)s AS VARCHAR)
  AND changes.is_history;

COMMIT;


-- DELETE /api/progress/{userId}/{moduleId}
-- ========================================

BEGIN ISOLATION LEVEL READ COMMITTED;

-- statements.lock_modules, as above

-- statements.lock_known_enrollments, as above

-- statements.read_records, as above

-- statements.read_days, as above

-- statements.read_sessions_of_records, as above

-- statements.read_contents, as above

-- statements.delete_records, as above

-- statements.delete_days, as above

-- statements.store, as above

-- statements.write_changes, as above

COMMIT;


-- DELETE /api/progress/{userId}
-- =============================

BEGIN ISOLATION LEVEL READ COMMITTED;

-- statements.enrolled_modules, as above

-- statements.lock_modules, as above

-- statements.lock_known_enrollments, as above

-- statements.read_records, as above

-- statements.read_days, as above

-- statements.read_sessions_of_records, as above

-- statements.read_contents, as above

-- store.locks._hold, as above

-- statements.enrolled_modules, as above

-- store.journal.forget: Delete what the journal tells of a learner, and of those who were merged into the learner;
-- keep erasures.
DELETE FROM changes
WHERE
  changes.user_id = CAST(%(user_id_1)s AS VARCHAR)
  AND changes.type <> CAST(%(type_1)s AS VARCHAR);

-- store.journal.forget (2): Delete what the journal tells of a learner, and of those who were merged into the
-- learner; keep erasures.
DELETE FROM changes
WHERE
  type = 'learner.merged' AND changes.data = CAST(%(data_1)s AS VARCHAR)
RETURNING changes.user_id;

-- store.journal.forget (2), as above

-- store.journal.rename, as above

-- statements.delete_records, as above

-- statements.delete_days, as above

-- statements.delete_enrollments, as above

-- statements.store, as above

-- statements.write_changes, as above

-- web.idempotency.forget, as above

COMMIT;


-- GET /readyz
-- ===========

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

SELECT set_config('lock_timeout', '100', True), set_config('statement_timeout', '3000', True), set_config('idle_in_transaction_session_timeout', '6000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.revisions.of: Return the revision of a database, or None if it has no schema.
SELECT
  pg_catalog.pg_class.relname
FROM pg_catalog.pg_class
JOIN pg_catalog.pg_namespace
  ON pg_catalog.pg_namespace.oid = pg_catalog.pg_class.relnamespace
WHERE
  pg_catalog.pg_class.relname IN (CAST(%(table_names_1)s AS VARCHAR))
  AND pg_catalog.pg_class.relkind = ANY(
    ARRAY[
      CAST(%(param_1)s AS VARCHAR),
      CAST(%(param_2)s AS VARCHAR),
      CAST(%(param_3)s AS VARCHAR),
      CAST(%(param_4)s AS VARCHAR),
      CAST(%(param_5)s AS VARCHAR)
    ]
  )
  AND pg_catalog.pg_table_is_visible(pg_catalog.pg_class.oid)
  AND pg_catalog.pg_namespace.nspname <> CAST(%(nspname_1)s AS VARCHAR);

-- store.revisions.of (2): Return the revision of a database, or None if it has no schema.
SELECT
  version_num
FROM alembic_version;

COMMIT;

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

SELECT set_config('lock_timeout', '100', True), set_config('statement_timeout', '3000', True), set_config('idle_in_transaction_session_timeout', '6000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.arrivals.under_way: Tell how much of a dump is restored, if one has been begun and not ended.
SELECT
  arrivals.lines,
  arrivals.digest
FROM arrivals
WHERE
  arrivals.digest IS NOT NULL;

COMMIT;

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '100', True), set_config('statement_timeout', '3000', True), set_config('idle_in_transaction_session_timeout', '6000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- operations.readiness.fault: Return why the service should get no requests, or None if it can work.
SELECT
  stored_answers.key
FROM stored_answers
WHERE
  FALSE;

-- operations.readiness.fault (2): Return why the service should get no requests, or None if it can work.
UPDATE stored_answers SET fingerprint = CAST(%(fingerprint)s AS VARCHAR)
WHERE
  FALSE;

COMMIT;


-- flask progress import --enrollments
-- ===================================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- importing._begin: Read the file, and begin to store each chunk; if the file cannot be read, the last one fails with
-- the error.
SELECT
  imported_chunks.digest
FROM imported_chunks;

COMMIT;

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- importing._look: Return how many of the first lines of a chunk are stored.
SELECT
  imported_chunks.digest
FROM imported_chunks
WHERE
  imported_chunks.digest IN (
    SELECT
      ids.id
    FROM (
      SELECT
        (
          ids_json.value ->> 0
        ) COLLATE "C" AS id
      FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(ids)s AS VARCHAR) AS JSONB)) AS ids_json
    ) AS ids
  );

-- importing._look (2): Return how many of the first lines of a chunk are stored.
SELECT
  imported_chunks.lines
FROM imported_chunks
WHERE
  imported_chunks.behind = CAST(%(behind_1)s AS VARCHAR)
  AND SUBSTRING(imported_chunks.line_digests FROM CAST(%(substr_1)s AS INT) FOR CAST(%(substr_2)s AS INT)) = %(substr_3)s;

-- statements.lock_modules, as above

-- statements.lock_enrollments, as above

-- statements.read_enrollments, as above

-- statements.read_line_dates, as above

-- statements.store_line_dates: Store as of when imported lines have told the fields of enrollments.
INSERT INTO imported_enrollments (
  user_id,
  module_id,
  status_told_at,
  enrolled_at_told_at,
  counted_told_at,
  completed_at_told_at
)
SELECT
  line_dates.user_id,
  line_dates.module_id,
  line_dates.status_told_at,
  line_dates.enrolled_at_told_at,
  line_dates.counted_told_at,
  line_dates.completed_at_told_at
FROM (
  SELECT
    (
      line_dates_json.value ->> 0
    ) COLLATE "C" AS user_id,
    (
      line_dates_json.value ->> 1
    ) COLLATE "C" AS module_id,
    CAST(line_dates_json.value ->> 2 AS TIMESTAMPTZ) AS status_told_at,
    CAST(line_dates_json.value ->> 3 AS TIMESTAMPTZ) AS enrolled_at_told_at,
    CAST(line_dates_json.value ->> 4 AS TIMESTAMPTZ) AS counted_told_at,
    CAST(line_dates_json.value ->> 5 AS TIMESTAMPTZ) AS completed_at_told_at
  FROM JSONB_ARRAY_ELEMENTS(CAST(CAST(%(line_dates)s AS VARCHAR) AS JSONB)) AS line_dates_json
) AS line_dates
WHERE
  TRUE
ORDER BY
  line_dates.user_id,
  line_dates.module_id ON CONFLICT(user_id, module_id) DO UPDATE SET status_told_at = excluded.status_told_at, enrolled_at_told_at = excluded.enrolled_at_told_at, counted_told_at = excluded.counted_told_at, completed_at_told_at = excluded.completed_at_told_at
WHERE
  TRUE;

-- statements.store, as above

-- statements.write_changes, as above

-- importing._look, as above

-- importing._look (2), as above

-- importing._note: Note that the lines of a chunk are stored.
INSERT INTO imported_chunks (
  digest,
  lines,
  imported_at,
  behind,
  line_digests
)
VALUES
  (
    CAST(%(digest)s AS VARCHAR),
    CAST(%(lines)s AS BIGINT),
    CAST(%(imported_at)s AS TIMESTAMPTZ),
    CAST(%(behind)s AS VARCHAR),
    %(line_digests)s
  );

COMMIT;


-- flask progress verify
-- =====================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.verification.drifts: Compare every stored total with its recount, module by module, in the snapshot that the
-- connection reads.
SELECT
  modules.id
FROM modules
ORDER BY
  modules.id;

-- store.verification._compare
SELECT
  NULL AS anon_1,
  CAST(%(param_1)s AS VARCHAR) AS anon_2,
  modules.total_weight AS total_weight_1,
  denominators.total_weight AS total_weight_2,
  modules.total_contents AS total_contents_1,
  denominators.total_contents AS total_contents_2
FROM modules, (
  SELECT
    modules.id AS module_id,
    CAST(COALESCE(SUM(contents.weight), CAST(%(coalesce_1)s AS INT)) AS BIGINT) AS total_weight,
    COUNT(contents.id) AS total_contents
  FROM modules
  LEFT OUTER JOIN contents
    ON contents.module_id = modules.id
    AND NOT contents.retired
    AND contents.weight > CAST(%(weight_1)s AS SMALLINT)
  WHERE
    modules.id = CAST(%(id_1)s AS VARCHAR)
  GROUP BY
    modules.id
) AS denominators
WHERE
  modules.id = denominators.module_id
  AND (
    modules.total_weight IS DISTINCT FROM denominators.total_weight
    OR modules.total_contents IS DISTINCT FROM denominators.total_contents
  );

-- store.verification._compare (2)
SELECT
  enrollments.user_id,
  CAST(%(param_1)s AS VARCHAR) AS anon_1,
  enrollments.weighted_sum AS weighted_sum_1,
  counted.weighted_sum AS weighted_sum_2,
  enrollments.completed_contents AS completed_contents_1,
  counted.completed_contents AS completed_contents_2,
  enrollments.time_spent_seconds AS time_spent_seconds_1,
  counted.time_spent_seconds AS time_spent_seconds_2,
  enrollments.enrolled_at AS enrolled_at_1,
  counted.enrolled_at AS enrolled_at_2,
  enrollments.last_activity_at AS last_activity_at_1,
  counted.last_activity_at AS last_activity_at_2,
  enrollments.last_content_id AS last_content_id_1,
  counted.last_content_id AS last_content_id_2,
  enrollments.last_is_excused AS last_is_excused_1,
  counted.last_is_excused AS last_is_excused_2,
  enrollments.status AS status_1,
  CASE
    WHEN (
      enrollments.status IN (CAST(%(status_2_1)s AS VARCHAR), CAST(%(status_2_2)s AS VARCHAR))
      AND denominators.total_contents > CAST(%(total_contents_1)s AS INT)
      AND counted.completed_contents = denominators.total_contents
    )
    THEN CAST(%(param_2)s AS VARCHAR)
    ELSE enrollments.status
  END AS anon_2
FROM enrollments, (
  SELECT
    dated.user_id AS user_id,
    dated.weighted_sum AS weighted_sum,
    dated.completed_contents AS completed_contents,
    dated.time_spent_seconds AS time_spent_seconds,
    dated.enrolled_at AS enrolled_at,
    dated.last_activity_at AS last_activity_at,
    dated.last_content_id AS last_content_id,
    EXISTS(
      SELECT
        progress_records.id
      FROM progress_records
      WHERE
        progress_records.user_id = dated.user_id
        AND progress_records.content_id = dated.last_content_id
        AND progress_records.excused_at IS NOT NULL
    ) AS last_is_excused
  FROM (
    SELECT
      enrollments.user_id AS user_id,
      CAST(COALESCE(summed.weighted_sum, CAST(%(coalesce_1)s AS INT)) AS BIGINT) AS weighted_sum,
      CAST(COALESCE(summed.completed_contents, CAST(%(coalesce_2)s AS INT)) AS BIGINT) AS completed_contents,
      CAST(COALESCE(summed.time_spent_seconds, CAST(%(coalesce_3)s AS INT)) AS BIGINT) AS time_spent_seconds,
      CASE
        WHEN (
          enrollments.enrolled_by_update AND summed.started_at < enrollments.enrolled_at
        )
        THEN summed.started_at
        ELSE enrollments.enrolled_at
      END AS enrolled_at,
      summed.last_activity_at AS last_activity_at,
      CASE
        WHEN (
          summed.last_activity_at IS NULL
        )
        THEN NULL
        WHEN (
          EXISTS(
            SELECT
              progress_records.id
            FROM progress_records
            WHERE
              progress_records.user_id = enrollments.user_id
              AND (
                progress_records.module_id || ''
              ) = CAST(%(param_3)s AS VARCHAR)
              AND progress_records.last_activity_at = summed.last_activity_at
              AND progress_records.content_id = enrollments.last_content_id
          )
        )
        THEN enrollments.last_content_id
        ELSE (
          SELECT
            MAX(progress_records.content_id) AS max_1
          FROM progress_records
          WHERE
            progress_records.user_id = enrollments.user_id
            AND (
              progress_records.module_id || ''
            ) = CAST(%(param_3)s AS VARCHAR)
            AND progress_records.last_activity_at = summed.last_activity_at
        )
      END AS last_content_id
    FROM enrollments
    LEFT OUTER JOIN (
      SELECT
        progress_records.user_id AS user_id,
        SUM(
          CASE
            WHEN NOT contents.retired
            THEN CAST(contents.weight AS BIGINT) * progress_records.progress_percentage
            ELSE CAST(%(param_4)s AS INT)
          END
        ) AS weighted_sum,
        SUM(
          CASE
            WHEN (
              NOT contents.retired
              AND contents.weight > CAST(%(weight_1)s AS SMALLINT)
              AND (
                progress_records.completed_at IS NOT NULL
                OR progress_records.excused_at IS NOT NULL
              )
            )
            THEN CAST(%(param_5)s AS INT)
            ELSE CAST(%(param_6)s AS INT)
          END
        ) AS completed_contents,
        SUM(progress_records.time_spent_seconds) AS time_spent_seconds,
        MIN(progress_records.started_at) AS started_at,
        MAX(progress_records.last_activity_at) AS last_activity_at
      FROM progress_records
      JOIN contents
        ON contents.id = progress_records.content_id
      WHERE
        progress_records.module_id = CAST(%(module_id_1)s AS VARCHAR)
      GROUP BY
        progress_records.user_id
    ) AS summed
      ON summed.user_id = enrollments.user_id
    WHERE
      enrollments.module_id = CAST(%(module_id_2)s AS VARCHAR)
  ) AS dated
) AS counted, (
  SELECT
    modules.id AS module_id,
    CAST(COALESCE(SUM(contents.weight), CAST(%(coalesce_4)s AS INT)) AS BIGINT) AS total_weight,
    COUNT(contents.id) AS total_contents
  FROM modules
  LEFT OUTER JOIN contents
    ON contents.module_id = modules.id
    AND NOT contents.retired
    AND contents.weight > CAST(%(weight_2)s AS SMALLINT)
  WHERE
    modules.id = CAST(%(id_1)s AS VARCHAR)
  GROUP BY
    modules.id
) AS denominators
WHERE
  enrollments.module_id = CAST(%(module_id_3)s AS VARCHAR)
  AND enrollments.user_id = counted.user_id
  AND enrollments.module_id = denominators.module_id
  AND (
    enrollments.weighted_sum IS DISTINCT FROM counted.weighted_sum
    OR enrollments.completed_contents IS DISTINCT FROM counted.completed_contents
    OR enrollments.time_spent_seconds IS DISTINCT FROM counted.time_spent_seconds
    OR enrollments.enrolled_at IS DISTINCT FROM counted.enrolled_at
    OR enrollments.last_activity_at IS DISTINCT FROM counted.last_activity_at
    OR enrollments.last_content_id IS DISTINCT FROM counted.last_content_id
    OR enrollments.last_is_excused IS DISTINCT FROM counted.last_is_excused
    OR enrollments.status IS DISTINCT FROM CASE
      WHEN (
        enrollments.status IN (CAST(%(status_2_1)s AS VARCHAR), CAST(%(status_2_2)s AS VARCHAR))
        AND denominators.total_contents > CAST(%(total_contents_1)s AS INT)
        AND counted.completed_contents = denominators.total_contents
      )
      THEN CAST(%(param_2)s AS VARCHAR)
      ELSE enrollments.status
    END
  );

-- store.verification._compare (3)
SELECT
  progress_records.user_id,
  progress_records.content_id || CAST(%(content_id_1)s AS VARCHAR) AS anon_1,
  progress_records.progress_percentage AS progress_percentage_1,
  CAST(%(param_1)s AS INT) AS anon_2
FROM progress_records, contents
WHERE
  progress_records.module_id = CAST(%(module_id_1)s AS VARCHAR)
  AND progress_records.content_id = contents.id
  AND progress_records.completed_at IS NULL
  AND progress_records.furthest_percentage >= contents.completion_threshold
  AND (
    contents.passing_score IS NULL
    OR progress_records.score * CAST(%(score_1)s AS BIGINT) >= contents.passing_score * progress_records.max_score
  )
  AND progress_records.progress_percentage IS DISTINCT FROM CAST(%(param_1)s AS INT);

-- store.verification._compare (4)
SELECT
  NULL AS anon_1,
  compared.kind || CAST(%(kind_1)s AS VARCHAR) || compared.item || CAST(%(param_1)s AS VARCHAR) AS anon_2,
  compared.stored_learners AS stored_learners_1,
  compared.recounted_learners AS recounted_learners_1,
  compared.stored_started AS stored_started_1,
  compared.recounted_started AS recounted_started_1,
  compared.stored_completed AS stored_completed_1,
  compared.recounted_completed AS recounted_completed_1,
  compared.stored_enrollments_completed AS stored_enrollments_completed_1,
  compared.recounted_enrollments_completed AS recounted_enrollments_completed_1,
  compared.stored_time_spent_seconds AS stored_time_spent_seconds_1,
  compared.recounted_time_spent_seconds AS recounted_time_spent_seconds_1,
  compared.stored_weighted_sum AS stored_weighted_sum_1,
  compared.recounted_weighted_sum AS recounted_weighted_sum_1,
  compared.stored_scored AS stored_scored_1,
  compared.recounted_scored AS recounted_scored_1,
  compared.stored_score_hundredths AS stored_score_hundredths_1,
  compared.recounted_score_hundredths AS recounted_score_hundredths_1
FROM (
  SELECT
    parts.kind AS kind,
    parts.item AS item,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.learners
          ELSE CAST(%(param_2)s AS INT)
        END
      ),
      CAST(%(coalesce_1)s AS INT)
    ) AS BIGINT) AS stored_learners,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.started
          ELSE CAST(%(param_3)s AS INT)
        END
      ),
      CAST(%(coalesce_2)s AS INT)
    ) AS BIGINT) AS stored_started,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.completed
          ELSE CAST(%(param_4)s AS INT)
        END
      ),
      CAST(%(coalesce_3)s AS INT)
    ) AS BIGINT) AS stored_completed,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.enrollments_completed
          ELSE CAST(%(param_5)s AS INT)
        END
      ),
      CAST(%(coalesce_4)s AS INT)
    ) AS BIGINT) AS stored_enrollments_completed,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.time_spent_seconds
          ELSE CAST(%(param_6)s AS INT)
        END
      ),
      CAST(%(coalesce_5)s AS INT)
    ) AS BIGINT) AS stored_time_spent_seconds,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.weighted_sum
          ELSE CAST(%(param_7)s AS INT)
        END
      ),
      CAST(%(coalesce_6)s AS INT)
    ) AS BIGINT) AS stored_weighted_sum,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.scored
          ELSE CAST(%(param_8)s AS INT)
        END
      ),
      CAST(%(coalesce_7)s AS INT)
    ) AS BIGINT) AS stored_scored,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = FALSE
          )
          THEN parts.score_hundredths
          ELSE CAST(%(param_9)s AS INT)
        END
      ),
      CAST(%(coalesce_8)s AS INT)
    ) AS BIGINT) AS stored_score_hundredths,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.learners
          ELSE CAST(%(param_10)s AS INT)
        END
      ),
      CAST(%(coalesce_9)s AS INT)
    ) AS BIGINT) AS recounted_learners,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.started
          ELSE CAST(%(param_11)s AS INT)
        END
      ),
      CAST(%(coalesce_10)s AS INT)
    ) AS BIGINT) AS recounted_started,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.completed
          ELSE CAST(%(param_12)s AS INT)
        END
      ),
      CAST(%(coalesce_11)s AS INT)
    ) AS BIGINT) AS recounted_completed,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.enrollments_completed
          ELSE CAST(%(param_13)s AS INT)
        END
      ),
      CAST(%(coalesce_12)s AS INT)
    ) AS BIGINT) AS recounted_enrollments_completed,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.time_spent_seconds
          ELSE CAST(%(param_14)s AS INT)
        END
      ),
      CAST(%(coalesce_13)s AS INT)
    ) AS BIGINT) AS recounted_time_spent_seconds,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.weighted_sum
          ELSE CAST(%(param_15)s AS INT)
        END
      ),
      CAST(%(coalesce_14)s AS INT)
    ) AS BIGINT) AS recounted_weighted_sum,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.scored
          ELSE CAST(%(param_16)s AS INT)
        END
      ),
      CAST(%(coalesce_15)s AS INT)
    ) AS BIGINT) AS recounted_scored,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            parts.recounted = TRUE
          )
          THEN parts.score_hundredths
          ELSE CAST(%(param_17)s AS INT)
        END
      ),
      CAST(%(coalesce_16)s AS INT)
    ) AS BIGINT) AS recounted_score_hundredths
  FROM (
    SELECT
      %(param_18)s AS recounted,
      tallies.kind AS kind,
      tallies.item AS item,
      tallies.learners AS learners,
      tallies.started AS started,
      tallies.completed AS completed,
      tallies.enrollments_completed AS enrollments_completed,
      tallies.time_spent_seconds AS time_spent_seconds,
      tallies.weighted_sum AS weighted_sum,
      tallies.scored AS scored,
      tallies.score_hundredths AS score_hundredths
    FROM tallies
    WHERE
      tallies.module_id = CAST(%(module_id_1)s AS VARCHAR)
      AND tallies.kind IN (
        CAST(%(kind_2_1)s AS VARCHAR),
        CAST(%(kind_2_2)s AS VARCHAR),
        CAST(%(kind_2_3)s AS VARCHAR),
        CAST(%(kind_2_4)s AS VARCHAR),
        CAST(%(kind_2_5)s AS VARCHAR),
        CAST(%(kind_2_6)s AS VARCHAR),
        CAST(%(kind_2_7)s AS VARCHAR)
      )
    UNION ALL
    SELECT
      %(param_19)s AS recounted,
      CAST(%(param_20)s AS VARCHAR) AS kind,
      CAST(enrollments.status AS VARCHAR) AS item,
      COUNT(*) AS learners,
      COUNT(enrollments.last_activity_at) AS started,
      CAST(%(param_21)s AS INT) AS completed,
      CAST(%(param_22)s AS INT) AS enrollments_completed,
      SUM(enrollments.time_spent_seconds) AS time_spent_seconds,
      SUM(enrollments.weighted_sum) AS weighted_sum,
      CAST(%(param_23)s AS INT) AS scored,
      CAST(%(param_24)s AS INT) AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = CAST(%(module_id_2)s AS VARCHAR) AND enrollments.counted
    GROUP BY
      CAST(enrollments.status AS VARCHAR)
    UNION ALL
    SELECT
      %(param_25)s AS recounted,
      CAST(%(param_26)s AS VARCHAR) AS kind,
      CAST(enrollments.weighted_sum / (
        SELECT
          COALESCE(
            NULLIF(modules.total_weight, CAST(%(nullif_1)s AS INT)),
            CAST(%(coalesce_18)s AS INT)
          ) AS coalesce_17
        FROM modules
        WHERE
          modules.id = CAST(%(id_1)s AS VARCHAR)
      ) AS VARCHAR) AS item,
      COUNT(*) AS learners,
      CAST(%(param_27)s AS INT) AS started,
      CAST(%(param_28)s AS INT) AS completed,
      CAST(%(param_29)s AS INT) AS enrollments_completed,
      CAST(%(param_30)s AS INT) AS time_spent_seconds,
      CAST(%(param_31)s AS INT) AS weighted_sum,
      CAST(%(param_32)s AS INT) AS scored,
      CAST(%(param_33)s AS INT) AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = CAST(%(module_id_3)s AS VARCHAR)
      AND enrollments.counted
      AND enrollments.status <> CAST(%(status_1)s AS VARCHAR)
    GROUP BY
      CAST(enrollments.weighted_sum / (
        SELECT
          COALESCE(
            NULLIF(modules.total_weight, CAST(%(nullif_1)s AS INT)),
            CAST(%(coalesce_18)s AS INT)
          ) AS coalesce_17
        FROM modules
        WHERE
          modules.id = CAST(%(id_1)s AS VARCHAR)
      ) AS VARCHAR)
    UNION ALL
    SELECT
      %(param_34)s AS recounted,
      CAST(%(param_35)s AS VARCHAR) AS kind,
      CAST(TO_CHAR(DATE_TRUNC('WEEK', TIMEZONE('UTC', enrollments.last_activity_at)), 'YYYY-MM-DD') || CAST(%(param_36)s AS VARCHAR) || enrollments.last_content_id AS VARCHAR) AS item,
      COUNT(*) AS learners,
      CAST(%(param_37)s AS INT) AS started,
      CAST(%(param_38)s AS INT) AS completed,
      CAST(%(param_39)s AS INT) AS enrollments_completed,
      CAST(%(param_40)s AS INT) AS time_spent_seconds,
      CAST(%(param_41)s AS INT) AS weighted_sum,
      CAST(%(param_42)s AS INT) AS scored,
      CAST(%(param_43)s AS INT) AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = CAST(%(module_id_4)s AS VARCHAR)
      AND enrollments.counted
      AND enrollments.status IN (CAST(%(status_2_1)s AS VARCHAR), CAST(%(status_2_2)s AS VARCHAR))
      AND enrollments.last_activity_at IS NOT NULL
      AND NOT enrollments.last_is_excused
    GROUP BY
      CAST(TO_CHAR(DATE_TRUNC('WEEK', TIMEZONE('UTC', enrollments.last_activity_at)), 'YYYY-MM-DD') || CAST(%(param_36)s AS VARCHAR) || enrollments.last_content_id AS VARCHAR)
    UNION ALL
    SELECT
      %(param_44)s AS recounted,
      CAST(%(param_45)s AS VARCHAR) AS kind,
      CAST(TO_CHAR(TIMEZONE('UTC', enrollments.last_activity_at), 'YYYY-MM-DD') || CAST(%(param_46)s AS VARCHAR) || enrollments.last_content_id AS VARCHAR) AS item,
      COUNT(*) AS learners,
      CAST(%(param_47)s AS INT) AS started,
      CAST(%(param_48)s AS INT) AS completed,
      CAST(%(param_49)s AS INT) AS enrollments_completed,
      CAST(%(param_50)s AS INT) AS time_spent_seconds,
      CAST(%(param_51)s AS INT) AS weighted_sum,
      CAST(%(param_52)s AS INT) AS scored,
      CAST(%(param_53)s AS INT) AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = CAST(%(module_id_5)s AS VARCHAR)
      AND enrollments.counted
      AND enrollments.status IN (CAST(%(status_2_1)s AS VARCHAR), CAST(%(status_2_2)s AS VARCHAR))
      AND enrollments.last_activity_at IS NOT NULL
      AND NOT enrollments.last_is_excused
    GROUP BY
      CAST(TO_CHAR(TIMEZONE('UTC', enrollments.last_activity_at), 'YYYY-MM-DD') || CAST(%(param_46)s AS VARCHAR) || enrollments.last_content_id AS VARCHAR)
    UNION ALL
    SELECT
      %(param_54)s AS recounted,
      CAST(%(param_55)s AS VARCHAR) AS kind,
      CAST(TO_CHAR(TIMEZONE('UTC', enrollments.completed_at), 'YYYY-MM-DD') AS VARCHAR) AS item,
      CAST(%(param_56)s AS INT) AS learners,
      CAST(%(param_57)s AS INT) AS started,
      CAST(%(param_58)s AS INT) AS completed,
      COUNT(*) AS enrollments_completed,
      CAST(%(param_59)s AS INT) AS time_spent_seconds,
      CAST(%(param_60)s AS INT) AS weighted_sum,
      CAST(%(param_61)s AS INT) AS scored,
      CAST(%(param_62)s AS INT) AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = CAST(%(module_id_6)s AS VARCHAR)
      AND enrollments.counted
      AND enrollments.completed_at IS NOT NULL
    GROUP BY
      CAST(TO_CHAR(TIMEZONE('UTC', enrollments.completed_at), 'YYYY-MM-DD') AS VARCHAR)
    UNION ALL
    SELECT
      %(param_63)s AS recounted,
      CAST(%(param_64)s AS VARCHAR) AS kind,
      CAST(progress_records.content_id AS VARCHAR) AS item,
      COUNT(*) AS learners,
      CAST(%(param_65)s AS INT) AS started,
      CAST(%(param_66)s AS INT) AS completed,
      CAST(%(param_67)s AS INT) AS enrollments_completed,
      CAST(%(param_68)s AS INT) AS time_spent_seconds,
      CAST(%(param_69)s AS INT) AS weighted_sum,
      CAST(%(param_70)s AS INT) AS scored,
      CAST(%(param_71)s AS INT) AS score_hundredths
    FROM progress_records
    WHERE
      progress_records.module_id = CAST(%(module_id_7)s AS VARCHAR)
      AND (
        NOT progress_records.user_id IN (
          SELECT
            enrollments.user_id
          FROM enrollments
          WHERE
            enrollments.module_id = CAST(%(module_id_8)s AS VARCHAR)
            AND NOT enrollments.counted
        )
      )
      AND progress_records.excused_at IS NOT NULL
    GROUP BY
      CAST(progress_records.content_id AS VARCHAR)
    UNION ALL
    SELECT
      %(param_72)s AS recounted,
      CAST(%(param_73)s AS VARCHAR) AS kind,
      CAST(progress_records.content_id AS VARCHAR) AS item,
      CAST(%(param_74)s AS INT) AS learners,
      COUNT(*) AS started,
      COUNT(progress_records.completed_at) AS completed,
      CAST(%(param_75)s AS INT) AS enrollments_completed,
      SUM(progress_records.time_spent_seconds) AS time_spent_seconds,
      CAST(%(param_76)s AS INT) AS weighted_sum,
      COUNT(progress_records.score) AS scored,
      COALESCE(
        SUM(
          (
            progress_records.score * CAST(%(score_1)s AS BIGINT)
          ) / progress_records.max_score
        ),
        CAST(%(coalesce_19)s AS INT)
      ) AS score_hundredths
    FROM progress_records
    WHERE
      progress_records.module_id = CAST(%(module_id_9)s AS VARCHAR)
      AND (
        NOT progress_records.user_id IN (
          SELECT
            enrollments.user_id
          FROM enrollments
          WHERE
            enrollments.module_id = CAST(%(module_id_10)s AS VARCHAR)
            AND NOT enrollments.counted
        )
      )
      AND progress_records.excused_at IS NULL
    GROUP BY
      CAST(progress_records.content_id AS VARCHAR)
    UNION ALL
    SELECT
      %(param_77)s AS recounted,
      CAST(%(param_78)s AS VARCHAR) AS kind,
      CAST(TO_CHAR(TIMEZONE('UTC', progress_records.started_at), 'YYYY-MM-DD') AS VARCHAR) AS item,
      CAST(%(param_79)s AS INT) AS learners,
      COUNT(*) AS started,
      CAST(%(param_80)s AS INT) AS completed,
      CAST(%(param_81)s AS INT) AS enrollments_completed,
      CAST(%(param_82)s AS INT) AS time_spent_seconds,
      CAST(%(param_83)s AS INT) AS weighted_sum,
      CAST(%(param_84)s AS INT) AS scored,
      CAST(%(param_85)s AS INT) AS score_hundredths
    FROM progress_records
    WHERE
      progress_records.module_id = CAST(%(module_id_11)s AS VARCHAR)
      AND (
        NOT progress_records.user_id IN (
          SELECT
            enrollments.user_id
          FROM enrollments
          WHERE
            enrollments.module_id = CAST(%(module_id_12)s AS VARCHAR)
            AND NOT enrollments.counted
        )
      )
      AND progress_records.excused_at IS NULL
    GROUP BY
      CAST(TO_CHAR(TIMEZONE('UTC', progress_records.started_at), 'YYYY-MM-DD') AS VARCHAR)
    UNION ALL
    SELECT
      %(param_86)s AS recounted,
      CAST(%(param_87)s AS VARCHAR) AS kind,
      CAST(TO_CHAR(TIMEZONE('UTC', progress_records.completed_at), 'YYYY-MM-DD') AS VARCHAR) AS item,
      CAST(%(param_88)s AS INT) AS learners,
      CAST(%(param_89)s AS INT) AS started,
      COUNT(*) AS completed,
      CAST(%(param_90)s AS INT) AS enrollments_completed,
      CAST(%(param_91)s AS INT) AS time_spent_seconds,
      CAST(%(param_92)s AS INT) AS weighted_sum,
      CAST(%(param_93)s AS INT) AS scored,
      CAST(%(param_94)s AS INT) AS score_hundredths
    FROM progress_records
    WHERE
      progress_records.module_id = CAST(%(module_id_13)s AS VARCHAR)
      AND (
        NOT progress_records.user_id IN (
          SELECT
            enrollments.user_id
          FROM enrollments
          WHERE
            enrollments.module_id = CAST(%(module_id_14)s AS VARCHAR)
            AND NOT enrollments.counted
        )
      )
      AND progress_records.completed_at IS NOT NULL
      AND progress_records.excused_at IS NULL
    GROUP BY
      CAST(TO_CHAR(TIMEZONE('UTC', progress_records.completed_at), 'YYYY-MM-DD') AS VARCHAR)
    UNION ALL
    SELECT
      %(param_95)s AS recounted,
      CAST(%(param_96)s AS VARCHAR) AS kind,
      CAST(activity_days.day AS VARCHAR) AS item,
      COUNT(*) AS learners,
      CAST(%(param_97)s AS INT) AS started,
      CAST(%(param_98)s AS INT) AS completed,
      CAST(%(param_99)s AS INT) AS enrollments_completed,
      SUM(activity_days.time_spent_seconds) AS time_spent_seconds,
      CAST(%(param_100)s AS INT) AS weighted_sum,
      CAST(%(param_101)s AS INT) AS scored,
      CAST(%(param_102)s AS INT) AS score_hundredths
    FROM activity_days, enrollments
    WHERE
      enrollments.module_id = CAST(%(module_id_15)s AS VARCHAR)
      AND enrollments.counted
      AND enrollments.user_id = activity_days.user_id
      AND activity_days.module_id = CAST(%(module_id_16)s AS VARCHAR)
    GROUP BY
      CAST(activity_days.day AS VARCHAR)
  ) AS parts
  GROUP BY
    parts.kind,
    parts.item
) AS compared
WHERE
  compared.stored_learners IS DISTINCT FROM compared.recounted_learners
  OR compared.stored_started IS DISTINCT FROM compared.recounted_started
  OR compared.stored_completed IS DISTINCT FROM compared.recounted_completed
  OR compared.stored_enrollments_completed IS DISTINCT FROM compared.recounted_enrollments_completed
  OR compared.stored_time_spent_seconds IS DISTINCT FROM compared.recounted_time_spent_seconds
  OR compared.stored_weighted_sum IS DISTINCT FROM compared.recounted_weighted_sum
  OR compared.stored_scored IS DISTINCT FROM compared.recounted_scored
  OR compared.stored_score_hundredths IS DISTINCT FROM compared.recounted_score_hundredths;

-- store.verification._compare, as above

-- store.verification._compare (2), as above

-- store.verification._compare (3), as above

-- store.verification._compare (4), as above

COMMIT;

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.verification.note: Store the last comparison in the place of earlier ones.
DELETE FROM verifications
WHERE
  verifications.verified_at <= CAST(%(verified_at_1)s AS TIMESTAMPTZ);

-- store.verification.note (2): Store the last comparison in the place of earlier ones.
INSERT INTO verifications (
  verified_at,
  drifts
)
VALUES
  (CAST(%(verified_at)s AS TIMESTAMPTZ), CAST(%(drifts)s AS BIGINT));

COMMIT;


-- flask progress verify --repair, of a learner
-- ============================================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.verification.drifts, as above

-- store.verification._compare, as above

-- store.verification._compare (2), as above

-- store.verification._compare (3), as above

-- store.verification._compare (4), as above

-- store.verification._compare, as above

-- store.verification._compare (2), as above

-- store.verification._compare (3), as above

-- store.verification._compare (4), as above

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- statements.lock_modules, as above

-- store.locks._lock_table (2)
LOCK TABLE enrollments IN ROW SHARE MODE;

-- store.verification.repair: Store the recount of a module's totals where they differ.
SELECT
  enrollments.user_id
FROM enrollments
WHERE
  enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
  AND enrollments.user_id IN (CAST(%(user_id_1_1)s AS VARCHAR))
ORDER BY
  enrollments.user_id   FOR UPDATE;

-- store.recount.completions (3): Complete the records of a module that fulfil the rule of their content, for all or
-- some contents and learners.
SELECT
  progress_records.content_id,
  CAST(COALESCE(
    SUM(
      CASE
        WHEN (
          (
            NOT progress_records.user_id IN (
              SELECT
                enrollments.user_id
              FROM enrollments
              WHERE
                enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
                AND NOT enrollments.counted
            )
          )
          AND progress_records.excused_at IS NULL
        )
        THEN CAST(%(param_1)s AS INT)
        ELSE CAST(%(param_2)s AS INT)
      END
    ),
    CAST(%(coalesce_1)s AS INT)
  ) AS BIGINT) AS number
FROM progress_records, contents
WHERE
  progress_records.module_id = CAST(%(module_id_2)s AS VARCHAR)
  AND progress_records.content_id = contents.id
  AND progress_records.completed_at IS NULL
  AND progress_records.furthest_percentage >= contents.completion_threshold
  AND (
    contents.passing_score IS NULL
    OR progress_records.score * CAST(%(score_1)s AS BIGINT) >= contents.passing_score * progress_records.max_score
  )
  AND progress_records.user_id IN (CAST(%(user_id_1_1)s AS VARCHAR))
GROUP BY
  progress_records.content_id;

-- store.recount.totals (3): Recount the totals of all or some of a module's enrollments, and complete the enrollments
-- that are complete.
UPDATE enrollments SET weighted_sum = counted.weighted_sum, completed_contents = counted.completed_contents, time_spent_seconds = counted.time_spent_seconds, enrolled_at = counted.enrolled_at, last_activity_at = counted.last_activity_at, last_content_id = counted.last_content_id, last_is_excused = counted.last_is_excused
FROM (
  SELECT
    dated.user_id AS user_id,
    dated.weighted_sum AS weighted_sum,
    dated.completed_contents AS completed_contents,
    dated.time_spent_seconds AS time_spent_seconds,
    dated.enrolled_at AS enrolled_at,
    dated.last_activity_at AS last_activity_at,
    dated.last_content_id AS last_content_id,
    EXISTS(
      SELECT
        progress_records.id
      FROM progress_records
      WHERE
        progress_records.user_id = dated.user_id
        AND progress_records.content_id = dated.last_content_id
        AND progress_records.excused_at IS NOT NULL
    ) AS last_is_excused
  FROM (
    SELECT
      enrollments.user_id AS user_id,
      CAST(COALESCE(summed.weighted_sum, CAST(%(coalesce_1)s AS INT)) AS BIGINT) AS weighted_sum,
      CAST(COALESCE(summed.completed_contents, CAST(%(coalesce_2)s AS INT)) AS BIGINT) AS completed_contents,
      CAST(COALESCE(summed.time_spent_seconds, CAST(%(coalesce_3)s AS INT)) AS BIGINT) AS time_spent_seconds,
      CASE
        WHEN (
          enrollments.enrolled_by_update AND summed.started_at < enrollments.enrolled_at
        )
        THEN summed.started_at
        ELSE enrollments.enrolled_at
      END AS enrolled_at,
      summed.last_activity_at AS last_activity_at,
      CASE
        WHEN (
          summed.last_activity_at IS NULL
        )
        THEN NULL
        WHEN (
          EXISTS(
            SELECT
              progress_records.id
            FROM progress_records
            WHERE
              progress_records.user_id = enrollments.user_id
              AND (
                progress_records.module_id || ''
              ) = CAST(%(param_1)s AS VARCHAR)
              AND progress_records.last_activity_at = summed.last_activity_at
              AND progress_records.content_id = enrollments.last_content_id
          )
        )
        THEN enrollments.last_content_id
        ELSE (
          SELECT
            MAX(progress_records.content_id) AS max_1
          FROM progress_records
          WHERE
            progress_records.user_id = enrollments.user_id
            AND (
              progress_records.module_id || ''
            ) = CAST(%(param_1)s AS VARCHAR)
            AND progress_records.last_activity_at = summed.last_activity_at
        )
      END AS last_content_id
    FROM enrollments
    LEFT OUTER JOIN (
      SELECT
        progress_records.user_id AS user_id,
        SUM(
          CASE
            WHEN NOT contents.retired
            THEN CAST(contents.weight AS BIGINT) * progress_records.progress_percentage
            ELSE CAST(%(param_2)s AS INT)
          END
        ) AS weighted_sum,
        SUM(
          CASE
            WHEN (
              NOT contents.retired
              AND contents.weight > CAST(%(weight_1)s AS SMALLINT)
              AND (
                progress_records.completed_at IS NOT NULL
                OR progress_records.excused_at IS NOT NULL
              )
            )
            THEN CAST(%(param_3)s AS INT)
            ELSE CAST(%(param_4)s AS INT)
          END
        ) AS completed_contents,
        SUM(progress_records.time_spent_seconds) AS time_spent_seconds,
        MIN(progress_records.started_at) AS started_at,
        MAX(progress_records.last_activity_at) AS last_activity_at
      FROM progress_records
      JOIN contents
        ON contents.id = progress_records.content_id
      WHERE
        progress_records.module_id = CAST(%(module_id_1)s AS VARCHAR)
      GROUP BY
        progress_records.user_id
    ) AS summed
      ON summed.user_id = enrollments.user_id
    WHERE
      enrollments.module_id = CAST(%(module_id_2)s AS VARCHAR)
  ) AS dated
) AS counted
WHERE
  enrollments.module_id = CAST(%(module_id_3)s AS VARCHAR)
  AND enrollments.user_id IN (CAST(%(user_id_1_1)s AS VARCHAR))
  AND enrollments.user_id = counted.user_id
  AND (
    enrollments.weighted_sum IS DISTINCT FROM counted.weighted_sum
    OR enrollments.completed_contents IS DISTINCT FROM counted.completed_contents
    OR enrollments.time_spent_seconds IS DISTINCT FROM counted.time_spent_seconds
    OR enrollments.enrolled_at IS DISTINCT FROM counted.enrolled_at
    OR enrollments.last_activity_at IS DISTINCT FROM counted.last_activity_at
    OR enrollments.last_content_id IS DISTINCT FROM counted.last_content_id
    OR enrollments.last_is_excused IS DISTINCT FROM counted.last_is_excused
  );

-- store.recount._complete (3): Complete the enrollments that are complete, and return how many of them count in
-- statistics.
SELECT
  COUNT(*) AS count_1
FROM enrollments
WHERE
  enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
  AND enrollments.user_id IN (CAST(%(user_id_1_1)s AS VARCHAR))
  AND (
    EXISTS(
      SELECT
        modules.id
      FROM modules
      WHERE
        modules.id = CAST(%(id_1)s AS VARCHAR)
        AND enrollments.status IN (CAST(%(status_1_1)s AS VARCHAR), CAST(%(status_1_2)s AS VARCHAR))
        AND modules.total_contents > CAST(%(total_contents_1)s AS BIGINT)
        AND enrollments.completed_contents = modules.total_contents
    )
  )
  AND enrollments.counted;

-- store.journal.write_selected (4): Write a change of a kind for each of the enrollments or records that the
-- conditions select, as of now.
INSERT INTO changes (
  settled_after,
  type,
  time,
  recorded_at,
  user_id,
  module_id,
  content_id,
  by_sub,
  by_role,
  data,
  is_history
)
SELECT
  GREATEST(
    CAST(CAST(PG_SNAPSHOT_XMAX(PG_CURRENT_SNAPSHOT()) AS TEXT) AS BIGINT) - 1,
    CAST(CAST(PG_CURRENT_XACT_ID() AS TEXT) AS BIGINT)
  ) + COALESCE((
    SELECT
      MAX(order_offset)
    FROM arrivals
  ), 0) AS settled_after,
  CAST(%(param_1)s AS VARCHAR) AS type,
  CAST(%(param_2)s AS TIMESTAMPTZ) AS time,
  CAST(%(param_3)s AS TIMESTAMPTZ) AS recorded_at,
  enrollments.user_id AS user_id,
  enrollments.module_id AS module_id,
  NULL AS content_id,
  CAST(%(param_4)s AS VARCHAR) AS by_sub,
  CAST(%(param_5)s AS VARCHAR) AS by_role,
  CAST(JSON_BUILD_OBJECT('progressPercentage', 100.0) AS TEXT) AS data,
  TRUE AS is_history
FROM enrollments
WHERE
  enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
  AND enrollments.user_id IN (CAST(%(user_id_1_1)s AS VARCHAR))
  AND (
    EXISTS(
      SELECT
        modules.id
      FROM modules
      WHERE
        modules.id = CAST(%(id_1)s AS VARCHAR)
        AND enrollments.status IN (CAST(%(status_1_1)s AS VARCHAR), CAST(%(status_1_2)s AS VARCHAR))
        AND modules.total_contents > CAST(%(total_contents_1)s AS BIGINT)
        AND enrollments.completed_contents = modules.total_contents
    )
  )
ORDER BY
  user_id,
  content_id;

-- store.recount._complete (4): Complete the enrollments that are complete, and return how many of them count in
-- statistics.
UPDATE enrollments SET status = CAST(%(status)s AS VARCHAR), completed_at = CAST(%(completed_at)s AS TIMESTAMPTZ)
WHERE
  enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
  AND enrollments.user_id IN (CAST(%(user_id_1_1)s AS VARCHAR))
  AND (
    EXISTS(
      SELECT
        modules.id
      FROM modules
      WHERE
        modules.id = CAST(%(id_1)s AS VARCHAR)
        AND enrollments.status IN (CAST(%(status_1_1)s AS VARCHAR), CAST(%(status_1_2)s AS VARCHAR))
        AND modules.total_contents > CAST(%(total_contents_1)s AS BIGINT)
        AND enrollments.completed_contents = modules.total_contents
    )
  );

COMMIT;

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.locks._hold, as above

-- statements.lock_modules, as above

-- store.locks._lock_table (2), as above

-- store.recount.tallies (2), as above

COMMIT;

COMMIT;

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.verification.note, as above

-- store.verification.note (2), as above

COMMIT;


-- flask progress verify --repair, of a module
-- ===========================================

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.verification.drifts, as above

-- store.verification._compare, as above

-- store.verification._compare (2), as above

-- store.verification._compare (3), as above

-- store.verification._compare (4), as above

-- store.verification._compare, as above

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.locks._lock_table, as above

-- store.locks._hold, as above

-- store.recount.denominators, as above

-- store.recount.completions (4): Complete the records of a module that fulfil the rule of their content, for all or
-- some contents and learners.
SELECT
  progress_records.content_id,
  CAST(COALESCE(
    SUM(
      CASE
        WHEN (
          (
            NOT progress_records.user_id IN (
              SELECT
                enrollments.user_id
              FROM enrollments
              WHERE
                enrollments.module_id = CAST(%(module_id_1)s AS VARCHAR)
                AND NOT enrollments.counted
            )
          )
          AND progress_records.excused_at IS NULL
        )
        THEN CAST(%(param_1)s AS INT)
        ELSE CAST(%(param_2)s AS INT)
      END
    ),
    CAST(%(coalesce_1)s AS INT)
  ) AS BIGINT) AS number
FROM progress_records, contents
WHERE
  progress_records.module_id = CAST(%(module_id_2)s AS VARCHAR)
  AND progress_records.content_id = contents.id
  AND progress_records.completed_at IS NULL
  AND progress_records.furthest_percentage >= contents.completion_threshold
  AND (
    contents.passing_score IS NULL
    OR progress_records.score * CAST(%(score_1)s AS BIGINT) >= contents.passing_score * progress_records.max_score
  )
GROUP BY
  progress_records.content_id;

-- store.recount.totals, as above

-- store.recount._complete, as above

-- store.journal.write_selected, as above

-- store.recount._complete (2), as above

COMMIT;

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.locks._hold, as above

-- statements.lock_modules, as above

-- store.locks._lock_table (2), as above

-- store.recount.tallies (2), as above

COMMIT;

-- store.verification._compare (2), as above

-- store.verification._compare (3), as above

-- store.verification._compare (4), as above

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.locks._lock_table, as above

-- store.locks._hold, as above

-- store.recount.denominators, as above

-- store.recount.completions (4), as above

-- store.recount.totals, as above

-- store.recount._complete, as above

-- store.journal.write_selected, as above

-- store.recount._complete (2), as above

COMMIT;

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.locks._hold, as above

-- statements.lock_modules, as above

-- store.locks._lock_table (2), as above

-- store.recount.tallies (2), as above

COMMIT;

COMMIT;

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.verification.note, as above

-- store.verification.note (2), as above

COMMIT;


-- flask progress purge
-- ====================

BEGIN ISOLATION LEVEL READ COMMITTED;

SELECT set_config('lock_timeout', '300000', True), set_config('statement_timeout', '300000', True), set_config('idle_in_transaction_session_timeout', '600000', True), set_config('DateStyle', 'ISO', True), set_config('TimeZone', 'UTC', True);

-- store.housekeeping._delete: Delete the oldest rows of a table up to a time, but none that others hold, and return
-- how many were deleted.
WITH expired AS (
  SELECT
    stored_answers.caller_id AS caller_id,
    stored_answers.key AS key
  FROM stored_answers
  WHERE
    stored_answers.stored_at <= CAST(%(stored_at_1)s AS TIMESTAMPTZ)
  ORDER BY
    stored_answers.stored_at
  LIMIT CAST(%(param_1)s AS INT)   FOR UPDATE SKIP LOCKED
)
DELETE FROM stored_answers
WHERE
  (stored_answers.caller_id, stored_answers.key) IN (
    SELECT
      expired.caller_id,
      expired.key
    FROM expired
  )
RETURNING stored_answers.stored_at;

-- store.housekeeping._delete (2): Delete the oldest rows of a table up to a time, but none that others hold, and
-- return how many were deleted.
WITH expired AS (
  SELECT
    sessions.user_id AS user_id,
    sessions.content_id AS content_id,
    sessions.session AS session
  FROM sessions
  WHERE
    sessions.received_at <= CAST(%(received_at_1)s AS TIMESTAMPTZ)
  ORDER BY
    sessions.received_at
  LIMIT CAST(%(param_1)s AS INT)   FOR UPDATE SKIP LOCKED
)
DELETE FROM sessions
WHERE
  (sessions.user_id, sessions.content_id, sessions.session) IN (
    SELECT
      expired.user_id,
      expired.content_id,
      expired.session
    FROM expired
  )
RETURNING sessions.received_at;

-- store.housekeeping._delete (3): Delete the oldest rows of a table up to a time, but none that others hold, and
-- return how many were deleted.
WITH expired AS (
  SELECT
    changes.id AS id
  FROM changes
  WHERE
    changes.recorded_at <= CAST(%(recorded_at_1)s AS TIMESTAMPTZ) AND NOT is_history
  ORDER BY
    changes.recorded_at
  LIMIT CAST(%(param_1)s AS INT)   FOR UPDATE SKIP LOCKED
)
DELETE FROM changes
WHERE
  (
    changes.id
  ) IN (
    SELECT
      expired.id
    FROM expired
  )
RETURNING changes.recorded_at;

COMMIT;
