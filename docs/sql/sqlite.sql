-- The statements that the service sends on sqlite, operation by operation, in their order.
-- `make sql` writes this file, and a test holds it to the code. A statement that is sent again is only named.
-- sqlglot has formatted them, and writes all casts in one form. A name in brackets or a ? stands for a parameter.


-- PUT /api/catalog/modules/{moduleId}, a new module
-- =================================================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

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
        JSON_EXTRACT(ids_json.value, '$[0]') AS id
      FROM JSON_EACH(?) AS ids_json
    ) AS ids
  );

-- store.publishing.published: Read modules as they were last published; ids without a module are left out.
SELECT
  module_instructors.module_id,
  module_instructors.user_id
FROM module_instructors
WHERE
  module_instructors.module_id IN (?)
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
  contents.module_id IN (?) AND contents.retired = 0
ORDER BY
  contents.ordinal;

-- store.publishing.published (3): Read modules as they were last published; ids without a module are left out.
SELECT
  modules.id,
  modules.title
FROM modules
WHERE
  modules.id IN (?)
ORDER BY
  modules.id;

-- store.publishing._owners, as above

-- store.publishing._counted_weights
SELECT
  contents.id,
  contents.weight
FROM contents
WHERE
  contents.module_id = ? AND contents.retired = 0 AND contents.weight > ?;

-- store.publishing._rules
SELECT
  contents.id,
  contents.completion_threshold,
  contents.passing_score
FROM contents
WHERE
  contents.module_id = ?;

-- store.publishing._store: Store a module with its instructors, and retire its contents; return whether the module is
-- new.
UPDATE modules SET title = ?
WHERE
  modules.id = ?;

-- store.publishing._store (2): Store a module with its instructors, and retire its contents; return whether the
-- module is new.
INSERT INTO modules (
  id,
  title,
  total_weight,
  total_contents
)
VALUES
  (?, ?, ?, ?);

-- store.publishing._store (3): Store a module with its instructors, and retire its contents; return whether the
-- module is new.
UPDATE contents SET retired = ?
WHERE
  contents.module_id = ?;

-- store.publishing._store (4): Store a module with its instructors, and retire its contents; return whether the
-- module is new.
DELETE FROM module_instructors
WHERE
  module_instructors.module_id = ?;

-- store.publishing._store (5): Store a module with its instructors, and retire its contents; return whether the
-- module is new.
INSERT INTO module_instructors (
  module_id,
  user_id,
  ordinal
)
VALUES
  (?, ?, ?);

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
  COALESCE((
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
    JSON_EXTRACT(changes_json.value, '$[0]') AS type,
    JSON_EXTRACT(changes_json.value, '$[1]') AS time,
    JSON_EXTRACT(changes_json.value, '$[2]') AS recorded_at,
    JSON_EXTRACT(changes_json.value, '$[3]') AS user_id,
    JSON_EXTRACT(changes_json.value, '$[4]') AS module_id,
    JSON_EXTRACT(changes_json.value, '$[5]') AS content_id,
    JSON_EXTRACT(changes_json.value, '$[6]') AS by_sub,
    JSON_EXTRACT(changes_json.value, '$[7]') AS by_role,
    JSON_EXTRACT(changes_json.value, '$[8]') AS data,
    JSON_EXTRACT(changes_json.value, '$[9]') AS is_history,
    JSON_EXTRACT(changes_json.value, '$[10]') AS place
  FROM JSON_EACH(?) AS changes_json
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
    JSON_EXTRACT(contents_json.value, '$[0]') AS id,
    JSON_EXTRACT(contents_json.value, '$[1]') AS module_id,
    JSON_EXTRACT(contents_json.value, '$[2]') AS ordinal,
    JSON_EXTRACT(contents_json.value, '$[3]') AS title,
    JSON_EXTRACT(contents_json.value, '$[4]') AS type,
    JSON_EXTRACT(contents_json.value, '$[5]') AS section,
    JSON_EXTRACT(contents_json.value, '$[6]') AS weight,
    JSON_EXTRACT(contents_json.value, '$[7]') AS completion_threshold,
    JSON_EXTRACT(contents_json.value, '$[8]') AS passing_score,
    JSON_EXTRACT(contents_json.value, '$[9]') AS retired
  FROM JSON_EACH(?) AS contents_json
) AS contents
WHERE
  1 = 1
ORDER BY
  contents.id ON CONFLICT(id) DO UPDATE SET ordinal = excluded.ordinal, title = excluded.title, type = excluded.type, section = excluded.section, weight = excluded.weight, completion_threshold = excluded.completion_threshold, passing_score = excluded.passing_score, retired = excluded.retired
WHERE
  contents.module_id = excluded.module_id
RETURNING id;

-- store.recount.denominators: Recount the module's current contents and their weights.
UPDATE modules SET total_weight = denominators.total_weight, total_contents = denominators.total_contents
FROM (
  SELECT
    modules.id AS module_id,
    CAST(COALESCE(SUM(contents.weight), ?) AS INTEGER) AS total_weight,
    COUNT(contents.id) AS total_contents
  FROM modules
  LEFT OUTER JOIN contents
    ON contents.module_id = modules.id AND contents.retired = 0 AND contents.weight > ?
  WHERE
    modules.id = ?
  GROUP BY
    modules.id
) AS denominators
WHERE
  modules.id = denominators.module_id;

COMMIT;


-- POST /api/progress, with an Idempotency-Key
-- ===========================================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

-- statements.find_answers: Find the answers that are stored under request keys.
SELECT
  stored_answers.caller_id,
  stored_answers."key",
  stored_answers.fingerprint,
  stored_answers.status,
  stored_answers.body,
  stored_answers.learner_id,
  stored_answers.stored_at
FROM (
  SELECT
    JSON_EXTRACT(request_keys_json.value, '$[0]') AS caller_id,
    JSON_EXTRACT(request_keys_json.value, '$[1]') AS "key"
  FROM JSON_EACH(?) AS request_keys_json
) AS request_keys
JOIN stored_answers
  ON stored_answers.caller_id = request_keys.caller_id
  AND stored_answers."key" = request_keys."key";

-- statements.lock_modules_of_contents: Share the locks of the modules to which the contents of the keys belong.
SELECT DISTINCT
  contents.module_id
FROM (
  SELECT
    JSON_EXTRACT(keys_json.value, '$[0]') AS user_id,
    JSON_EXTRACT(keys_json.value, '$[1]') AS content_id,
    JSON_EXTRACT(keys_json.value, '$[2]') AS day,
    JSON_EXTRACT(keys_json.value, '$[3]') AS enrolled_at,
    JSON_EXTRACT(keys_json.value, '$[4]') AS by_instructor,
    JSON_EXTRACT(keys_json.value, '$[5]') AS place
  FROM JSON_EACH(?) AS keys_json
) AS keys
JOIN contents
  ON contents.id = keys.content_id;

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
  ? AS status,
  learners.enrolled_at AS enrolled_at,
  ? AS enrolled_by_update,
  NOT (
    learners.by_instructor = 1
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
  ? AS weighted_sum,
  ? AS completed_contents,
  ? AS time_spent_seconds
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
      contents.module_id AS module_id,
      keys.enrolled_at AS enrolled_at,
      keys.by_instructor AS by_instructor,
      ROW_NUMBER() OVER (PARTITION BY keys.user_id, contents.module_id ORDER BY keys.place) AS nth
    FROM (
      SELECT
        JSON_EXTRACT(keys_json.value, '$[0]') AS user_id,
        JSON_EXTRACT(keys_json.value, '$[1]') AS content_id,
        JSON_EXTRACT(keys_json.value, '$[2]') AS day,
        JSON_EXTRACT(keys_json.value, '$[3]') AS enrolled_at,
        JSON_EXTRACT(keys_json.value, '$[4]') AS by_instructor,
        JSON_EXTRACT(keys_json.value, '$[5]') AS place
      FROM JSON_EACH(?) AS keys_json
    ) AS keys
    JOIN contents
      ON contents.id = keys.content_id
  ) AS updates
  WHERE
    updates.nth = 1
) AS learners
WHERE
  1 = 1
ORDER BY
  learners.user_id,
  learners.module_id ON CONFLICT(user_id, module_id) DO UPDATE SET status = enrollments.status
WHERE
  0
RETURNING user_id, module_id;

-- statements.read: Read everything that updates of the keys change or depend on; a value that is not stored is null.
SELECT
  keys.user_id,
  keys.content_id,
  contents.module_id,
  contents.weight,
  contents.completion_threshold,
  contents.passing_score,
  contents.retired,
  modules.total_weight,
  modules.total_contents,
  enrollments.user_id AS user_id_1,
  enrollments.module_id AS module_id_1,
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
  progress_records.id,
  progress_records.user_id AS user_id_2,
  progress_records.module_id AS module_id_2,
  progress_records.content_id AS content_id_1,
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
  progress_records.excused_at,
  activity_days.user_id AS user_id_3,
  activity_days.module_id AS module_id_3,
  activity_days.day,
  activity_days.time_spent_seconds AS time_spent_seconds_2
FROM (
  SELECT
    JSON_EXTRACT(keys_json.value, '$[0]') AS user_id,
    JSON_EXTRACT(keys_json.value, '$[1]') AS content_id,
    JSON_EXTRACT(keys_json.value, '$[2]') AS day,
    JSON_EXTRACT(keys_json.value, '$[3]') AS enrolled_at,
    JSON_EXTRACT(keys_json.value, '$[4]') AS by_instructor,
    JSON_EXTRACT(keys_json.value, '$[5]') AS place
  FROM JSON_EACH(?) AS keys_json
) AS keys
JOIN contents
  ON contents.id = keys.content_id
JOIN modules
  ON modules.id = contents.module_id
LEFT OUTER JOIN enrollments
  ON enrollments.user_id = keys.user_id AND enrollments.module_id = contents.module_id
LEFT OUTER JOIN progress_records
  ON progress_records.user_id = keys.user_id
  AND progress_records.content_id = keys.content_id
LEFT OUTER JOIN activity_days
  ON activity_days.day = keys.day
  AND activity_days.user_id = keys.user_id
  AND activity_days.module_id = contents.module_id;

-- statements.store: Store records, enrollments, days and tallies: in one statement on PostgreSQL, in four on SQLite.
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
  records.id,
  records.user_id,
  records.module_id,
  records.content_id,
  records.started_at,
  records.last_activity_at,
  records.furthest_percentage,
  records.time_spent_seconds,
  records.score,
  records.max_score,
  records.position,
  records.position_at,
  records.completed_at,
  records.reached_at,
  records.passed_at,
  records.excused_at,
  records.progress_percentage
FROM (
  SELECT
    JSON_EXTRACT(records_json.value, '$[0]') AS id,
    JSON_EXTRACT(records_json.value, '$[1]') AS user_id,
    JSON_EXTRACT(records_json.value, '$[2]') AS module_id,
    JSON_EXTRACT(records_json.value, '$[3]') AS content_id,
    JSON_EXTRACT(records_json.value, '$[4]') AS started_at,
    JSON_EXTRACT(records_json.value, '$[5]') AS last_activity_at,
    JSON_EXTRACT(records_json.value, '$[6]') AS furthest_percentage,
    JSON_EXTRACT(records_json.value, '$[7]') AS time_spent_seconds,
    JSON_EXTRACT(records_json.value, '$[8]') AS score,
    JSON_EXTRACT(records_json.value, '$[9]') AS max_score,
    JSON_EXTRACT(records_json.value, '$[10]') AS position,
    JSON_EXTRACT(records_json.value, '$[11]') AS position_at,
    JSON_EXTRACT(records_json.value, '$[12]') AS completed_at,
    JSON_EXTRACT(records_json.value, '$[13]') AS reached_at,
    JSON_EXTRACT(records_json.value, '$[14]') AS passed_at,
    JSON_EXTRACT(records_json.value, '$[15]') AS excused_at,
    JSON_EXTRACT(records_json.value, '$[16]') AS progress_percentage
  FROM JSON_EACH(?) AS records_json
) AS records
WHERE
  1 = 1
ORDER BY
  records.user_id,
  records.content_id ON CONFLICT(user_id, content_id) DO UPDATE SET module_id = excluded.module_id, progress_percentage = excluded.progress_percentage, furthest_percentage = excluded.furthest_percentage, time_spent_seconds = excluded.time_spent_seconds, score = excluded.score, max_score = excluded.max_score, position = excluded.position, position_at = excluded.position_at, started_at = excluded.started_at, completed_at = excluded.completed_at, last_activity_at = excluded.last_activity_at, reached_at = excluded.reached_at, passed_at = excluded.passed_at, excused_at = excluded.excused_at
WHERE
  1 = 1;

-- statements.store (2): Store records, enrollments, days and tallies: in one statement on PostgreSQL, in four on
-- SQLite.
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
FROM (
  SELECT
    JSON_EXTRACT(enrollments_json.value, '$[0]') AS user_id,
    JSON_EXTRACT(enrollments_json.value, '$[1]') AS module_id,
    JSON_EXTRACT(enrollments_json.value, '$[2]') AS status,
    JSON_EXTRACT(enrollments_json.value, '$[3]') AS enrolled_at,
    JSON_EXTRACT(enrollments_json.value, '$[4]') AS weighted_sum,
    JSON_EXTRACT(enrollments_json.value, '$[5]') AS completed_contents,
    JSON_EXTRACT(enrollments_json.value, '$[6]') AS time_spent_seconds,
    JSON_EXTRACT(enrollments_json.value, '$[7]') AS completed_at,
    JSON_EXTRACT(enrollments_json.value, '$[8]') AS last_activity_at,
    JSON_EXTRACT(enrollments_json.value, '$[9]') AS last_content_id,
    JSON_EXTRACT(enrollments_json.value, '$[10]') AS enrolled_by_update,
    JSON_EXTRACT(enrollments_json.value, '$[11]') AS counted,
    JSON_EXTRACT(enrollments_json.value, '$[12]') AS last_is_excused,
    JSON_EXTRACT(enrollments_json.value, '$[13]') AS credited
  FROM JSON_EACH(?) AS enrollments_json
) AS enrollments
WHERE
  1 = 1
ORDER BY
  enrollments.user_id,
  enrollments.module_id ON CONFLICT(user_id, module_id) DO UPDATE SET status = excluded.status, weighted_sum = excluded.weighted_sum, completed_contents = excluded.completed_contents, time_spent_seconds = excluded.time_spent_seconds, enrolled_at = excluded.enrolled_at, completed_at = excluded.completed_at, last_activity_at = excluded.last_activity_at, last_content_id = excluded.last_content_id, enrolled_by_update = excluded.enrolled_by_update, counted = excluded.counted, last_is_excused = excluded.last_is_excused, credited = excluded.credited
WHERE
  1 = 1;

-- statements.store (3): Store records, enrollments, days and tallies: in one statement on PostgreSQL, in four on
-- SQLite.
INSERT INTO activity_days (
  user_id,
  module_id,
  day,
  time_spent_seconds
)
SELECT
  days.user_id,
  days.module_id,
  days.day,
  days.time_spent_seconds
FROM (
  SELECT
    JSON_EXTRACT(days_json.value, '$[0]') AS user_id,
    JSON_EXTRACT(days_json.value, '$[1]') AS module_id,
    JSON_EXTRACT(days_json.value, '$[2]') AS day,
    JSON_EXTRACT(days_json.value, '$[3]') AS time_spent_seconds
  FROM JSON_EACH(?) AS days_json
) AS days
WHERE
  1 = 1
ORDER BY
  days.user_id,
  days.module_id,
  days.day ON CONFLICT(user_id, module_id, day) DO UPDATE SET time_spent_seconds = excluded.time_spent_seconds
WHERE
  1 = 1;

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
    JSON_EXTRACT(tallies_json.value, '$[0]') AS module_id,
    JSON_EXTRACT(tallies_json.value, '$[1]') AS kind,
    JSON_EXTRACT(tallies_json.value, '$[2]') AS item,
    JSON_EXTRACT(tallies_json.value, '$[3]') AS part,
    JSON_EXTRACT(tallies_json.value, '$[4]') AS learners,
    JSON_EXTRACT(tallies_json.value, '$[5]') AS started,
    JSON_EXTRACT(tallies_json.value, '$[6]') AS completed,
    JSON_EXTRACT(tallies_json.value, '$[7]') AS enrollments_completed,
    JSON_EXTRACT(tallies_json.value, '$[8]') AS time_spent_seconds,
    JSON_EXTRACT(tallies_json.value, '$[9]') AS weighted_sum,
    JSON_EXTRACT(tallies_json.value, '$[10]') AS scored,
    JSON_EXTRACT(tallies_json.value, '$[11]') AS score_hundredths
  FROM JSON_EACH(?) AS tallies_json
) AS tallies
WHERE
  1 = 1
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

-- statements.write_changes, as above

-- statements.keep_answers: Store answers under their request keys.
INSERT INTO stored_answers (
  caller_id,
  "key",
  fingerprint,
  status,
  learner_id,
  stored_at,
  body
)
SELECT
  answers.caller_id,
  answers."key",
  answers.fingerprint,
  answers.status,
  answers.learner_id,
  answers.stored_at,
  CAST(answers.body AS BLOB) AS body
FROM (
  SELECT
    JSON_EXTRACT(answers_json.value, '$[0]') AS caller_id,
    JSON_EXTRACT(answers_json.value, '$[1]') AS "key",
    JSON_EXTRACT(answers_json.value, '$[2]') AS fingerprint,
    JSON_EXTRACT(answers_json.value, '$[3]') AS status,
    JSON_EXTRACT(answers_json.value, '$[4]') AS learner_id,
    JSON_EXTRACT(answers_json.value, '$[5]') AS stored_at,
    JSON_EXTRACT(answers_json.value, '$[6]') AS body
  FROM JSON_EACH(?) AS answers_json
) AS answers;

COMMIT;


-- POST /api/progress, the same again
-- ==================================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

-- statements.find_answers, as above

COMMIT;


-- PUT /api/catalog/modules/{moduleId}, a content retired
-- ======================================================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

-- store.publishing._owners, as above

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
    progress_records.user_id AS user_id,
    CAST(COALESCE(SUM(weights.weight * progress_records.progress_percentage), ?) AS INTEGER) AS weighted_sum,
    CAST(COALESCE(
      SUM(
        CASE
          WHEN (
            NOT progress_records.completed_at IS NULL
            OR NOT progress_records.excused_at IS NULL
          )
          THEN weights.contents
          ELSE ?
        END
      ),
      ?
    ) AS INTEGER) AS completed_contents
  FROM (
    SELECT
      JSON_EXTRACT(weights_json.value, '$[0]') AS id,
      JSON_EXTRACT(weights_json.value, '$[1]') AS weight,
      JSON_EXTRACT(weights_json.value, '$[2]') AS contents
    FROM JSON_EACH(?) AS weights_json
  ) AS weights
  JOIN progress_records
    ON progress_records.module_id = ? AND progress_records.content_id = weights.id
  GROUP BY
    progress_records.user_id
) AS gained
WHERE
  enrollments.module_id = ?
  AND enrollments.user_id = gained.user_id
  AND (
    gained.weighted_sum <> ? OR gained.completed_contents <> ?
  );

-- store.recount._complete: Complete the enrollments that are complete, and return how many of them count in
-- statistics.
SELECT
  COUNT(*) AS count_1
FROM enrollments
WHERE
  enrollments.module_id = ?
  AND (
    EXISTS(
      SELECT
        modules.id
      FROM modules
      WHERE
        modules.id = ?
        AND enrollments.status IN (?, ?)
        AND modules.total_contents > ?
        AND enrollments.completed_contents = modules.total_contents
    )
  )
  AND enrollments.counted = 1;

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
  COALESCE((
    SELECT
      MAX(order_offset)
    FROM arrivals
  ), 0) AS settled_after,
  ? AS type,
  ? AS time,
  ? AS recorded_at,
  enrollments.user_id AS user_id,
  enrollments.module_id AS module_id,
  NULL AS content_id,
  ? AS by_sub,
  ? AS by_role,
  JSON_OBJECT('progressPercentage', 100.0) AS data,
  1 AS is_history
FROM enrollments
WHERE
  enrollments.module_id = ?
  AND (
    EXISTS(
      SELECT
        modules.id
      FROM modules
      WHERE
        modules.id = ?
        AND enrollments.status IN (?, ?)
        AND modules.total_contents > ?
        AND enrollments.completed_contents = modules.total_contents
    )
  )
ORDER BY
  user_id,
  content_id;

-- store.recount._complete (2): Complete the enrollments that are complete, and return how many of them count in
-- statistics.
UPDATE enrollments SET status = ?, completed_at = ?
WHERE
  enrollments.module_id = ?
  AND (
    EXISTS(
      SELECT
        modules.id
      FROM modules
      WHERE
        modules.id = ?
        AND enrollments.status IN (?, ?)
        AND modules.total_contents > ?
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
  ? AS anon_1,
  compared.kind,
  compared.item,
  ? AS anon_2,
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
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 0
    ) THEN parts.learners ELSE ? END), ?) AS INTEGER) AS stored_learners,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 0
    ) THEN parts.started ELSE ? END), ?) AS INTEGER) AS stored_started,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 0
    ) THEN parts.completed ELSE ? END), ?) AS INTEGER) AS stored_completed,
    CAST(COALESCE(
      SUM(CASE WHEN (
        parts.recounted = 0
      ) THEN parts.enrollments_completed ELSE ? END),
      ?
    ) AS INTEGER) AS stored_enrollments_completed,
    CAST(COALESCE(
      SUM(CASE WHEN (
        parts.recounted = 0
      ) THEN parts.time_spent_seconds ELSE ? END),
      ?
    ) AS INTEGER) AS stored_time_spent_seconds,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 0
    ) THEN parts.weighted_sum ELSE ? END), ?) AS INTEGER) AS stored_weighted_sum,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 0
    ) THEN parts.scored ELSE ? END), ?) AS INTEGER) AS stored_scored,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 0
    ) THEN parts.score_hundredths ELSE ? END), ?) AS INTEGER) AS stored_score_hundredths,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 1
    ) THEN parts.learners ELSE ? END), ?) AS INTEGER) AS recounted_learners,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 1
    ) THEN parts.started ELSE ? END), ?) AS INTEGER) AS recounted_started,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 1
    ) THEN parts.completed ELSE ? END), ?) AS INTEGER) AS recounted_completed,
    CAST(COALESCE(
      SUM(CASE WHEN (
        parts.recounted = 1
      ) THEN parts.enrollments_completed ELSE ? END),
      ?
    ) AS INTEGER) AS recounted_enrollments_completed,
    CAST(COALESCE(
      SUM(CASE WHEN (
        parts.recounted = 1
      ) THEN parts.time_spent_seconds ELSE ? END),
      ?
    ) AS INTEGER) AS recounted_time_spent_seconds,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 1
    ) THEN parts.weighted_sum ELSE ? END), ?) AS INTEGER) AS recounted_weighted_sum,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 1
    ) THEN parts.scored ELSE ? END), ?) AS INTEGER) AS recounted_scored,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 1
    ) THEN parts.score_hundredths ELSE ? END), ?) AS INTEGER) AS recounted_score_hundredths
  FROM (
    SELECT
      ? AS recounted,
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
      tallies.module_id = ? AND tallies.kind IN (?, ?)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(enrollments.status AS TEXT) AS item,
      COUNT(*) AS learners,
      COUNT(enrollments.last_activity_at) AS started,
      ? AS completed,
      ? AS enrollments_completed,
      SUM(enrollments.time_spent_seconds) AS time_spent_seconds,
      SUM(enrollments.weighted_sum) AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = ? AND enrollments.counted = 1
    GROUP BY
      CAST(enrollments.status AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(enrollments.weighted_sum / (
        SELECT
          COALESCE(NULLIF(modules.total_weight, ?), ?) AS coalesce_17
        FROM modules
        WHERE
          modules.id = ?
      ) AS TEXT) AS item,
      COUNT(*) AS learners,
      ? AS started,
      ? AS completed,
      ? AS enrollments_completed,
      ? AS time_spent_seconds,
      ? AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = ? AND enrollments.counted = 1 AND enrollments.status <> ?
    GROUP BY
      CAST(enrollments.weighted_sum / (
        SELECT
          COALESCE(NULLIF(modules.total_weight, ?), ?) AS coalesce_17
        FROM modules
        WHERE
          modules.id = ?
      ) AS TEXT)
  ) AS parts
  GROUP BY
    parts.kind,
    parts.item
) AS compared
WHERE
  compared.recounted_learners - compared.stored_learners <> ?
  OR compared.recounted_started - compared.stored_started <> ?
  OR compared.recounted_completed - compared.stored_completed <> ?
  OR compared.recounted_enrollments_completed - compared.stored_enrollments_completed <> ?
  OR compared.recounted_time_spent_seconds - compared.stored_time_spent_seconds <> ?
  OR compared.recounted_weighted_sum - compared.stored_weighted_sum <> ?
  OR compared.recounted_scored - compared.stored_scored <> ?
  OR compared.recounted_score_hundredths - compared.stored_score_hundredths <> ?
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

-- statements.store_tallies, as above

COMMIT;


-- PUT /api/catalog/modules/{moduleId}, a content that moves
-- =========================================================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

-- store.publishing._owners, as above

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
  COALESCE((
    SELECT
      MAX(order_offset)
    FROM arrivals
  ), 0) AS settled_after,
  ? AS type,
  learners.enrolled_at AS time,
  ? AS recorded_at,
  learners.user_id AS user_id,
  learners.module_id AS module_id,
  NULL AS content_id,
  ? AS by_sub,
  ? AS by_role,
  CASE WHEN learners.counted THEN ? ELSE ? END AS data,
  1 AS is_history
FROM (
  SELECT
    progress_records.user_id AS user_id,
    ? AS module_id,
    COALESCE(MIN(progress_records.started_at), ?) AS enrolled_at,
    MAX(CASE WHEN enrollments.counted THEN ? ELSE ? END) = ? AS counted
  FROM (
    SELECT
      JSON_EXTRACT(moves_json.value, '$[0]') AS id,
      JSON_EXTRACT(moves_json.value, '$[1]') AS module_id
    FROM JSON_EACH(?) AS moves_json
  ) AS moves
  JOIN progress_records
    ON progress_records.module_id = moves.module_id
    AND progress_records.content_id = moves.id
  JOIN enrollments
    ON enrollments.user_id = progress_records.user_id
    AND enrollments.module_id = moves.module_id
  WHERE
    NOT (
      EXISTS(
        SELECT
          *
        FROM enrollments AS enrollments_1
        WHERE
          enrollments_1.user_id = progress_records.user_id AND enrollments_1.module_id = ?
      )
    )
  GROUP BY
    progress_records.user_id
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
  ? AS anon_1,
  1 AS anon_2,
  ? AS anon_3,
  ? AS anon_4,
  ? AS anon_5
FROM (
  SELECT
    progress_records.user_id AS user_id,
    ? AS module_id,
    COALESCE(MIN(progress_records.started_at), ?) AS enrolled_at,
    MAX(CASE WHEN enrollments.counted THEN ? ELSE ? END) = ? AS counted
  FROM (
    SELECT
      JSON_EXTRACT(moves_json.value, '$[0]') AS id,
      JSON_EXTRACT(moves_json.value, '$[1]') AS module_id
    FROM JSON_EACH(?) AS moves_json
  ) AS moves
  JOIN progress_records
    ON progress_records.module_id = moves.module_id
    AND progress_records.content_id = moves.id
  JOIN enrollments
    ON enrollments.user_id = progress_records.user_id
    AND enrollments.module_id = moves.module_id
  WHERE
    NOT (
      EXISTS(
        SELECT
          *
        FROM enrollments AS enrollments_1
        WHERE
          enrollments_1.user_id = progress_records.user_id AND enrollments_1.module_id = ?
      )
    )
  GROUP BY
    progress_records.user_id
) AS learners;

-- store.publishing._move: Move retired contents to other modules; their records follow (see `models.ProgressRecord`).
UPDATE contents SET module_id = ?
WHERE
  contents.id IN (
    SELECT
      ids.id
    FROM (
      SELECT
        JSON_EXTRACT(ids_json.value, '$[0]') AS id
      FROM JSON_EACH(?) AS ids_json
    ) AS ids
  );

-- statements.store_contents, as above

-- store.recount.denominators, as above

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
        AND NOT progress_records.excused_at IS NULL
    ) AS last_is_excused
  FROM (
    SELECT
      enrollments.user_id AS user_id,
      CAST(COALESCE(summed.weighted_sum, ?) AS INTEGER) AS weighted_sum,
      CAST(COALESCE(summed.completed_contents, ?) AS INTEGER) AS completed_contents,
      CAST(COALESCE(summed.time_spent_seconds, ?) AS INTEGER) AS time_spent_seconds,
      CASE
        WHEN (
          enrollments.enrolled_by_update = 1
          AND summed.started_at < enrollments.enrolled_at
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
              ) = ?
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
            ) = ?
            AND progress_records.last_activity_at = summed.last_activity_at
        )
      END AS last_content_id
    FROM enrollments
    LEFT OUTER JOIN (
      SELECT
        progress_records.user_id AS user_id,
        SUM(
          CASE
            WHEN contents.retired = 0
            THEN CAST(contents.weight AS INTEGER) * progress_records.progress_percentage
            ELSE ?
          END
        ) AS weighted_sum,
        SUM(
          CASE
            WHEN (
              contents.retired = 0
              AND contents.weight > ?
              AND (
                NOT progress_records.completed_at IS NULL
                OR NOT progress_records.excused_at IS NULL
              )
            )
            THEN ?
            ELSE ?
          END
        ) AS completed_contents,
        SUM(progress_records.time_spent_seconds) AS time_spent_seconds,
        MIN(progress_records.started_at) AS started_at,
        MAX(progress_records.last_activity_at) AS last_activity_at
      FROM progress_records
      JOIN contents
        ON contents.id = progress_records.content_id
      WHERE
        progress_records.module_id = ?
      GROUP BY
        progress_records.user_id
    ) AS summed
      ON summed.user_id = enrollments.user_id
    WHERE
      enrollments.module_id = ?
  ) AS dated
) AS counted
WHERE
  enrollments.module_id = ?
  AND enrollments.user_id = counted.user_id
  AND (
    enrollments.weighted_sum IS NOT counted.weighted_sum
    OR enrollments.completed_contents IS NOT counted.completed_contents
    OR enrollments.time_spent_seconds IS NOT counted.time_spent_seconds
    OR enrollments.enrolled_at IS NOT counted.enrolled_at
    OR enrollments.last_activity_at IS NOT counted.last_activity_at
    OR enrollments.last_content_id IS NOT counted.last_content_id
    OR enrollments.last_is_excused IS NOT counted.last_is_excused
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
  ? AS anon_1,
  compared.kind,
  compared.item,
  ? AS anon_2,
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
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 0
    ) THEN parts.learners ELSE ? END), ?) AS INTEGER) AS stored_learners,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 0
    ) THEN parts.started ELSE ? END), ?) AS INTEGER) AS stored_started,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 0
    ) THEN parts.completed ELSE ? END), ?) AS INTEGER) AS stored_completed,
    CAST(COALESCE(
      SUM(CASE WHEN (
        parts.recounted = 0
      ) THEN parts.enrollments_completed ELSE ? END),
      ?
    ) AS INTEGER) AS stored_enrollments_completed,
    CAST(COALESCE(
      SUM(CASE WHEN (
        parts.recounted = 0
      ) THEN parts.time_spent_seconds ELSE ? END),
      ?
    ) AS INTEGER) AS stored_time_spent_seconds,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 0
    ) THEN parts.weighted_sum ELSE ? END), ?) AS INTEGER) AS stored_weighted_sum,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 0
    ) THEN parts.scored ELSE ? END), ?) AS INTEGER) AS stored_scored,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 0
    ) THEN parts.score_hundredths ELSE ? END), ?) AS INTEGER) AS stored_score_hundredths,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 1
    ) THEN parts.learners ELSE ? END), ?) AS INTEGER) AS recounted_learners,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 1
    ) THEN parts.started ELSE ? END), ?) AS INTEGER) AS recounted_started,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 1
    ) THEN parts.completed ELSE ? END), ?) AS INTEGER) AS recounted_completed,
    CAST(COALESCE(
      SUM(CASE WHEN (
        parts.recounted = 1
      ) THEN parts.enrollments_completed ELSE ? END),
      ?
    ) AS INTEGER) AS recounted_enrollments_completed,
    CAST(COALESCE(
      SUM(CASE WHEN (
        parts.recounted = 1
      ) THEN parts.time_spent_seconds ELSE ? END),
      ?
    ) AS INTEGER) AS recounted_time_spent_seconds,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 1
    ) THEN parts.weighted_sum ELSE ? END), ?) AS INTEGER) AS recounted_weighted_sum,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 1
    ) THEN parts.scored ELSE ? END), ?) AS INTEGER) AS recounted_scored,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 1
    ) THEN parts.score_hundredths ELSE ? END), ?) AS INTEGER) AS recounted_score_hundredths
  FROM (
    SELECT
      ? AS recounted,
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
      tallies.module_id = ? AND tallies.kind IN (?, ?, ?, ?, ?, ?, ?)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(enrollments.status AS TEXT) AS item,
      COUNT(*) AS learners,
      COUNT(enrollments.last_activity_at) AS started,
      ? AS completed,
      ? AS enrollments_completed,
      SUM(enrollments.time_spent_seconds) AS time_spent_seconds,
      SUM(enrollments.weighted_sum) AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = ? AND enrollments.counted = 1
    GROUP BY
      CAST(enrollments.status AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(enrollments.weighted_sum / (
        SELECT
          COALESCE(NULLIF(modules.total_weight, ?), ?) AS coalesce_17
        FROM modules
        WHERE
          modules.id = ?
      ) AS TEXT) AS item,
      COUNT(*) AS learners,
      ? AS started,
      ? AS completed,
      ? AS enrollments_completed,
      ? AS time_spent_seconds,
      ? AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = ? AND enrollments.counted = 1 AND enrollments.status <> ?
    GROUP BY
      CAST(enrollments.weighted_sum / (
        SELECT
          COALESCE(NULLIF(modules.total_weight, ?), ?) AS coalesce_17
        FROM modules
        WHERE
          modules.id = ?
      ) AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(DATE(SUBSTRING(enrollments.last_activity_at, 1, 10), 'weekday 0', '-6 days') || ? || enrollments.last_content_id AS TEXT) AS item,
      COUNT(*) AS learners,
      ? AS started,
      ? AS completed,
      ? AS enrollments_completed,
      ? AS time_spent_seconds,
      ? AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = ?
      AND enrollments.counted = 1
      AND enrollments.status IN (?, ?)
      AND NOT enrollments.last_activity_at IS NULL
      AND enrollments.last_is_excused = 0
    GROUP BY
      CAST(DATE(SUBSTRING(enrollments.last_activity_at, 1, 10), 'weekday 0', '-6 days') || ? || enrollments.last_content_id AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(SUBSTRING(enrollments.last_activity_at, 1, 10) || ? || enrollments.last_content_id AS TEXT) AS item,
      COUNT(*) AS learners,
      ? AS started,
      ? AS completed,
      ? AS enrollments_completed,
      ? AS time_spent_seconds,
      ? AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = ?
      AND enrollments.counted = 1
      AND enrollments.status IN (?, ?)
      AND NOT enrollments.last_activity_at IS NULL
      AND enrollments.last_is_excused = 0
    GROUP BY
      CAST(SUBSTRING(enrollments.last_activity_at, 1, 10) || ? || enrollments.last_content_id AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(SUBSTRING(enrollments.completed_at, 1, 10) AS TEXT) AS item,
      ? AS learners,
      ? AS started,
      ? AS completed,
      COUNT(*) AS enrollments_completed,
      ? AS time_spent_seconds,
      ? AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = ?
      AND enrollments.counted = 1
      AND NOT enrollments.completed_at IS NULL
    GROUP BY
      CAST(SUBSTRING(enrollments.completed_at, 1, 10) AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(progress_records.content_id AS TEXT) AS item,
      COUNT(*) AS learners,
      ? AS started,
      ? AS completed,
      ? AS enrollments_completed,
      ? AS time_spent_seconds,
      ? AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM progress_records
    WHERE
      progress_records.module_id = ?
      AND (
        NOT progress_records.user_id IN (
          SELECT
            enrollments.user_id
          FROM enrollments
          WHERE
            enrollments.module_id = ? AND enrollments.counted = 0
        )
      )
      AND NOT progress_records.excused_at IS NULL
    GROUP BY
      CAST(progress_records.content_id AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(progress_records.content_id AS TEXT) AS item,
      ? AS learners,
      COUNT(*) AS started,
      COUNT(progress_records.completed_at) AS completed,
      ? AS enrollments_completed,
      SUM(progress_records.time_spent_seconds) AS time_spent_seconds,
      ? AS weighted_sum,
      COUNT(progress_records.score) AS scored,
      COALESCE(SUM((
        progress_records.score * ?
      ) / progress_records.max_score), ?) AS score_hundredths
    FROM progress_records
    WHERE
      progress_records.module_id = ?
      AND (
        NOT progress_records.user_id IN (
          SELECT
            enrollments.user_id
          FROM enrollments
          WHERE
            enrollments.module_id = ? AND enrollments.counted = 0
        )
      )
      AND progress_records.excused_at IS NULL
    GROUP BY
      CAST(progress_records.content_id AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(SUBSTRING(progress_records.started_at, 1, 10) AS TEXT) AS item,
      ? AS learners,
      COUNT(*) AS started,
      ? AS completed,
      ? AS enrollments_completed,
      ? AS time_spent_seconds,
      ? AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM progress_records
    WHERE
      progress_records.module_id = ?
      AND (
        NOT progress_records.user_id IN (
          SELECT
            enrollments.user_id
          FROM enrollments
          WHERE
            enrollments.module_id = ? AND enrollments.counted = 0
        )
      )
      AND progress_records.excused_at IS NULL
    GROUP BY
      CAST(SUBSTRING(progress_records.started_at, 1, 10) AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(SUBSTRING(progress_records.completed_at, 1, 10) AS TEXT) AS item,
      ? AS learners,
      ? AS started,
      COUNT(*) AS completed,
      ? AS enrollments_completed,
      ? AS time_spent_seconds,
      ? AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM progress_records
    WHERE
      progress_records.module_id = ?
      AND (
        NOT progress_records.user_id IN (
          SELECT
            enrollments.user_id
          FROM enrollments
          WHERE
            enrollments.module_id = ? AND enrollments.counted = 0
        )
      )
      AND NOT progress_records.completed_at IS NULL
      AND progress_records.excused_at IS NULL
    GROUP BY
      CAST(SUBSTRING(progress_records.completed_at, 1, 10) AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(activity_days.day AS TEXT) AS item,
      COUNT(*) AS learners,
      ? AS started,
      ? AS completed,
      ? AS enrollments_completed,
      SUM(activity_days.time_spent_seconds) AS time_spent_seconds,
      ? AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM activity_days
    CROSS JOIN enrollments
    WHERE
      enrollments.module_id = ?
      AND enrollments.counted = 1
      AND enrollments.user_id = activity_days.user_id
      AND activity_days.module_id = ?
    GROUP BY
      CAST(activity_days.day AS TEXT)
  ) AS parts
  GROUP BY
    parts.kind,
    parts.item
) AS compared
WHERE
  compared.recounted_learners - compared.stored_learners <> ?
  OR compared.recounted_started - compared.stored_started <> ?
  OR compared.recounted_completed - compared.stored_completed <> ?
  OR compared.recounted_enrollments_completed - compared.stored_enrollments_completed <> ?
  OR compared.recounted_time_spent_seconds - compared.stored_time_spent_seconds <> ?
  OR compared.recounted_weighted_sum - compared.stored_weighted_sum <> ?
  OR compared.recounted_scored - compared.stored_scored <> ?
  OR compared.recounted_score_hundredths - compared.stored_score_hundredths <> ?
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

-- store.publishing._rules, as above

-- store.recount.totals, as above

-- store.recount._complete, as above

-- store.journal.write_selected, as above

-- store.recount._complete (2), as above

-- store.recount.tallies (2), as above

COMMIT;


-- POST /api/progress/batch, which completes an enrollment
-- =======================================================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

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
      AND contents.retired = 0
      AND contents.weight > ?
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
              JSON_EXTRACT(keys_json.value, '$[0]') AS user_id,
              JSON_EXTRACT(keys_json.value, '$[1]') AS content_id,
              JSON_EXTRACT(keys_json.value, '$[2]') AS day,
              JSON_EXTRACT(keys_json.value, '$[3]') AS enrolled_at,
              JSON_EXTRACT(keys_json.value, '$[4]') AS by_instructor,
              JSON_EXTRACT(keys_json.value, '$[5]') AS place
            FROM JSON_EACH(?) AS keys_json
          ) AS keys
        )
      )
  ) AS completed_at
FROM (
  SELECT
    JSON_EXTRACT(enrollment_keys_json.value, '$[0]') AS user_id,
    JSON_EXTRACT(enrollment_keys_json.value, '$[1]') AS module_id,
    JSON_EXTRACT(enrollment_keys_json.value, '$[2]') AS enrolled_at
  FROM JSON_EACH(?) AS enrollment_keys_json
) AS enrollment_keys;

-- statements.store, as above

-- statements.store (2), as above

-- statements.store (3), as above

-- statements.store_tallies, as above

-- statements.write_changes, as above

COMMIT;


-- GET /api/progress/{userId}
-- ==========================

PRAGMA busy_timeout = 500;

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
      enrollments.user_id = ?
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
              ON progress_records_1.content_id = contents_1.id AND progress_records_1.user_id = ?
            WHERE
              contents_1.module_id = enrollments.module_id
              AND contents_1.retired = 0
              AND progress_records_1.completed_at IS NULL
              AND progress_records_1.excused_at IS NULL
          )
        )
      )
    ORDER BY
      enrollments.last_activity_at DESC,
      enrollments.enrolled_at DESC,
      enrollments.module_id
    LIMIT 1
    OFFSET ?
  ) AS following_module
  JOIN contents AS contents_1
    ON contents_1.module_id = following_module.module_id
  LEFT OUTER JOIN progress_records AS progress_records_1
    ON progress_records_1.content_id = contents_1.id AND progress_records_1.user_id = ?
  LEFT OUTER JOIN contents AS contents_2
    ON contents_2.id = following_module.last_content_id AND contents_2.retired = 0
  WHERE
    contents_1.retired = 0
    AND progress_records_1.completed_at IS NULL
    AND progress_records_1.excused_at IS NULL
  ORDER BY
    CASE
      WHEN (
        contents_1.id = following_module.last_content_id
      )
      THEN ?
      WHEN (
        contents_1.weight > ?
      )
      THEN ?
      ELSE ?
    END,
    CASE WHEN (
      contents_1.ordinal > contents_2.ordinal
    ) THEN ? ELSE ? END,
    contents_1.ordinal
  LIMIT 1
  OFFSET ?
) AS following
  ON 1 = 1
WHERE
  enrollments.user_id = ?
ORDER BY
  enrollments.last_activity_at DESC,
  enrollments.module_id;

COMMIT;


-- GET /api/progress/{userId}/{moduleId}, by an instructor
-- =======================================================

PRAGMA busy_timeout = 500;

-- web.auth.authorize: Raise 403 for data beyond the caller's reach: of another learner, or of a module that others
-- teach.
SELECT
  module_instructors.module_id
FROM module_instructors
WHERE
  module_instructors.module_id = ? AND module_instructors.user_id = ?;

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
  ON enrollments.module_id = modules.id AND enrollments.user_id = ?
LEFT OUTER JOIN contents
  ON contents.module_id = modules.id AND contents.retired = 0
LEFT OUTER JOIN progress_records
  ON progress_records.content_id = contents.id AND progress_records.user_id = ?
WHERE
  modules.id = ?
ORDER BY
  contents.ordinal;

COMMIT;


-- GET /api/progress/{userId}/{moduleId}/history
-- =============================================

PRAGMA busy_timeout = 500;

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
    changes.user_id = ?
    AND changes.module_id = ?
    AND changes.is_history = 1
    AND changes.id < ?
  ORDER BY
    changes.id DESC
  LIMIT ?
  OFFSET ?
) AS told
  ON 1 = 1
WHERE
  modules.id = ?
ORDER BY
  told.id DESC;

COMMIT;


-- GET /api/changes
-- ================

PRAGMA busy_timeout = 500;

BEGIN;

-- changes.queries._first_open: Return the first transaction that has not ended; it is the same in all statements of a
-- snapshot.
SELECT
  (
    1 + COALESCE((
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
      (changes.settled_after, changes.id) > (?, ?) AND changes.settled_after < ?
    ORDER BY
      changes.settled_after,
      changes.id
    LIMIT ?
    OFFSET ?
  )
  AND changes.type IN (?)
  AND (
    changes.module_id IN (?) OR changes.module_id IS NULL
  )
ORDER BY
  changes.settled_after,
  changes.id
LIMIT ?
OFFSET ?;

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
    (changes.settled_after, changes.id) > (?, ?) AND changes.settled_after < ?
  ORDER BY
    changes.settled_after,
    changes.id
  LIMIT ?
  OFFSET ?
) AS looked_at
ORDER BY
  looked_at.settled_after DESC,
  looked_at.id DESC
LIMIT ?
OFFSET ?;

COMMIT;


-- PUT /api/webhooks/{webhookId}, a new webhook
-- ============================================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

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
  webhooks.id = ?;

-- changes.queries._first_open, as above

-- changes.queries.end: Return the place behind the last change.
SELECT
  changes.settled_after,
  changes.id
FROM changes
WHERE
  changes.settled_after < ?
ORDER BY
  changes.settled_after DESC,
  changes.id DESC
LIMIT ?
OFFSET ?;

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
  (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

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
      (changes.settled_after, changes.id) > (?, ?)
    ORDER BY
      changes.settled_after,
      changes.id
    LIMIT ?
    OFFSET ?
  )
  AND changes.type IN (?)
  AND (
    changes.module_id IN (?) OR changes.module_id IS NULL
  );

COMMIT;


-- PUT /api/webhooks/{webhookId}
-- =============================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

-- store.webhooks.lock, as above

-- store.webhooks.change: Change a webhook, if it exists and fulfils the conditions, and return what it has become.
UPDATE webhooks SET url = ?, types = ?, module_ids = ?, active = ?
WHERE
  webhooks.id = ?
RETURNING id, url, types, module_ids, active, secret, previous_secret, previous_until, settled_after, change_id, failing_since, last_status, leased_until;

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
      (changes.settled_after, changes.id) > (?, ?)
    ORDER BY
      changes.settled_after,
      changes.id
    LIMIT ?
    OFFSET ?
  );

COMMIT;


-- GET /api/webhooks/{webhookId}
-- =============================

PRAGMA busy_timeout = 500;

BEGIN;

-- store.webhooks.lock, as above

-- store.webhooks.pending (2), as above

COMMIT;


-- GET /api/webhooks
-- =================

PRAGMA busy_timeout = 500;

BEGIN;

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

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

-- store.webhooks.lock, as above

-- store.webhooks.change (2): Change a webhook, if it exists and fulfils the conditions, and return what it has
-- become.
UPDATE webhooks SET secret = ?, previous_secret = ?, previous_until = ?
WHERE
  webhooks.id = ?
RETURNING id, url, types, module_ids, active, secret, previous_secret, previous_until, settled_after, change_id, failing_since, last_status, leased_until;

-- store.webhooks.pending (2), as above

COMMIT;


-- flask progress deliver --once, of nothing wanted
-- ================================================

PRAGMA busy_timeout = 300000;

BEGIN;

-- store.webhooks.due: List the webhooks that something settled waits for, that may be told now, and that nobody
-- delivers to.
SELECT
  webhooks.id
FROM webhooks
WHERE
  webhooks.active IS 1
  AND (
    webhooks.next_try_at IS NULL OR webhooks.next_try_at <= ?
  )
  AND (
    webhooks.leased_until IS NULL OR webhooks.leased_until <= ?
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
              1 + COALESCE((
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

PRAGMA busy_timeout = 300000;

BEGIN IMMEDIATE;

-- store.webhooks.change (3): Change a webhook, if it exists and fulfils the conditions, and return what it has
-- become.
UPDATE webhooks SET leased_by = ?, leased_until = ?
WHERE
  webhooks.id = ?
  AND webhooks.active IS 1
  AND (
    webhooks.next_try_at IS NULL OR webhooks.next_try_at <= ?
  )
  AND (
    webhooks.leased_until IS NULL OR webhooks.leased_until <= ?
  )
RETURNING id, url, types, module_ids, active, secret, previous_secret, previous_until, settled_after, change_id, failing_since, last_status, leased_until;

COMMIT;

PRAGMA busy_timeout = 300000;

BEGIN;

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
      (changes.settled_after, changes.id) > (?, ?) AND changes.settled_after < ?
    ORDER BY
      changes.settled_after,
      changes.id
    LIMIT ?
    OFFSET ?
  )
  AND changes.type IN (?)
ORDER BY
  changes.settled_after,
  changes.id
LIMIT ?
OFFSET ?;

-- changes.queries.feed (2), as above

COMMIT;

PRAGMA busy_timeout = 300000;

BEGIN IMMEDIATE;

-- store.webhooks.change (4): Change a webhook, if it exists and fulfils the conditions, and return what it has
-- become.
UPDATE webhooks SET settled_after = ?, change_id = ?, leased_until = ?
WHERE
  webhooks.id = ? AND webhooks.leased_by = ?
RETURNING id, url, types, module_ids, active, secret, previous_secret, previous_until, settled_after, change_id, failing_since, last_status, leased_until;

COMMIT;

PRAGMA busy_timeout = 300000;

BEGIN IMMEDIATE;

-- store.webhooks.change (5): Change a webhook, if it exists and fulfils the conditions, and return what it has
-- become.
UPDATE webhooks SET leased_by = ?, leased_until = ?
WHERE
  webhooks.id = ? AND webhooks.leased_by = ?
RETURNING id, url, types, module_ids, active, secret, previous_secret, previous_until, settled_after, change_id, failing_since, last_status, leased_until;

COMMIT;


-- DELETE /api/webhooks/{webhookId}
-- ================================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

-- store.webhooks.remove: Delete a webhook, if there is one.
DELETE FROM webhooks
WHERE
  webhooks.id = ?;

COMMIT;


-- PUT /api/progress/{recordId}/complete
-- =====================================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

-- statements.find_records: Find the learners and the contents of records by their ids.
SELECT
  progress_records.id,
  progress_records.user_id,
  progress_records.content_id
FROM (
  SELECT
    JSON_EXTRACT(record_ids_json.value, '$[0]') AS id,
    JSON_EXTRACT(record_ids_json.value, '$[1]') AS user_id
  FROM JSON_EACH(?) AS record_ids_json
) AS record_ids
JOIN progress_records
  ON progress_records.id = record_ids.id
  AND progress_records.user_id = record_ids.user_id
WHERE
  NOT record_ids.user_id IS NULL
UNION ALL
SELECT
  progress_records.id,
  progress_records.user_id,
  progress_records.content_id
FROM (
  SELECT
    JSON_EXTRACT(record_ids_json.value, '$[0]') AS id,
    JSON_EXTRACT(record_ids_json.value, '$[1]') AS user_id
  FROM JSON_EACH(?) AS record_ids_json
) AS record_ids
JOIN progress_records
  ON progress_records.id = record_ids.id
WHERE
  record_ids.user_id IS NULL;

-- statements.lock_modules_of_contents, as above

-- statements.lock_enrollments_of_contents, as above

-- statements.read, as above

-- statements.store, as above

-- statements.store (2), as above

-- statements.store (3), as above

-- statements.store_tallies, as above

-- statements.write_changes, as above

COMMIT;


-- GET /api/progress/stats, by an instructor
-- =========================================

PRAGMA busy_timeout = 500;

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
      AND enrollments.counted = 1
      AND NOT enrollments.last_activity_at IS NULL
    ORDER BY
      enrollments.last_activity_at DESC,
      enrollments.user_id DESC
    LIMIT ?
    OFFSET ?
  ) AS anon_1,
  status.name,
  CAST(COALESCE(SUM(tallies.learners), ?) AS INTEGER) AS coalesce_1,
  CAST(COALESCE(SUM(tallies.started), ?) AS INTEGER) AS coalesce_3,
  CAST(COALESCE(SUM(tallies.weighted_sum), ?) AS INTEGER) AS coalesce_5
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
    module_instructors.user_id = ? AND modules.id > ?
  ORDER BY
    modules.id
  LIMIT ?
  OFFSET ?
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
  ON 1 = 1
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

PRAGMA busy_timeout = 500;

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
  modules.id = ?
UNION ALL
SELECT
  'content' AS kind,
  contents.id AS c0,
  tallied.started AS c1,
  tallied.completed AS c2,
  tallied.time_spent_seconds AS c3,
  tallied.scored AS c4,
  tallied.score_hundredths AS c5,
  CAST(contents.weight AS INTEGER) AS c6,
  contents.ordinal AS c7,
  contents.title AS c8,
  contents.type AS c9,
  contents.section AS c10
FROM contents
LEFT OUTER JOIN (
  SELECT
    tallies.item AS item,
    CAST(SUM(tallies.started) AS INTEGER) AS started,
    CAST(SUM(tallies.completed) AS INTEGER) AS completed,
    CAST(SUM(tallies.time_spent_seconds) AS INTEGER) AS time_spent_seconds,
    CAST(SUM(tallies.scored) AS INTEGER) AS scored,
    CAST(SUM(tallies.score_hundredths) AS INTEGER) AS score_hundredths
  FROM tallies
  WHERE
    tallies.module_id = ? AND tallies.kind IN ('content')
  GROUP BY
    tallies.item
) AS tallied
  ON tallied.item = contents.id
WHERE
  contents.module_id = ? AND contents.retired = 0
UNION ALL
SELECT
  'status' AS kind,
  tallies.item AS c0,
  CAST(SUM(tallies.learners) AS INTEGER) AS c1,
  CAST(SUM(tallies.started) AS INTEGER) AS c2,
  CAST(SUM(tallies.time_spent_seconds) AS INTEGER) AS c3,
  CAST(SUM(tallies.weighted_sum) AS INTEGER) AS c4,
  NULL AS c5,
  NULL AS c6,
  NULL AS c7,
  NULL AS c8,
  NULL AS c9,
  NULL AS c10
FROM tallies
WHERE
  tallies.module_id = ? AND tallies.kind IN ('status')
GROUP BY
  tallies.item
UNION ALL
SELECT
  'percentage' AS kind,
  tallies.item AS c0,
  CAST(SUM(tallies.learners) AS INTEGER) AS c1,
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
  tallies.module_id = ? AND tallies.kind IN ('percentage')
GROUP BY
  tallies.item
UNION ALL
SELECT
  'excused' AS kind,
  tallies.item AS c0,
  CAST(SUM(tallies.learners) AS INTEGER) AS c1,
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
  tallies.module_id = ? AND tallies.kind IN ('excused')
GROUP BY
  tallies.item
UNION ALL
SELECT
  'stalled' AS kind,
  CAST(SUBSTRING(tallies.item, 12) AS TEXT) AS c0,
  CAST(SUM(tallies.learners) AS INTEGER) AS c1,
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
  tallies.module_id = ?
  AND tallies.kind IN ('last_week')
  AND tallies.item < (
    SELECT
      ? AS anon_1
  )
GROUP BY
  CAST(SUBSTRING(tallies.item, 12) AS TEXT)
UNION ALL
SELECT
  'stalled' AS kind,
  CAST(SUBSTRING(tallies.item, 12) AS TEXT) AS c0,
  CAST(SUM(tallies.learners) AS INTEGER) AS c1,
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
  tallies.module_id = ?
  AND tallies.kind IN ('last_day')
  AND tallies.item >= (
    SELECT
      ? AS anon_1
  )
  AND tallies.item < (
    SELECT
      ? AS anon_2
  )
GROUP BY
  CAST(SUBSTRING(tallies.item, 12) AS TEXT)
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
  enrollments.module_id = ?
  AND enrollments.status IN ('active', 'paused')
  AND enrollments.counted = 1
  AND enrollments.last_is_excused = 0
  AND enrollments.last_activity_at <= (
    SELECT
      ? AS anon_3
  )
  AND enrollments.last_activity_at >= (
    SELECT
      ? AS anon_4
  )
GROUP BY
  enrollments.last_content_id;

COMMIT;


-- GET /api/progress/stats/{moduleId}/learners
-- ===========================================

PRAGMA busy_timeout = 500;

BEGIN;

-- analytics.queries.module: Find a module.
SELECT
  modules.title,
  modules.total_weight,
  modules.total_contents
FROM modules
WHERE
  modules.id = ?;

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
    enrollments.module_id = ?
    AND enrollments.status = ?
    AND NOT enrollments.last_activity_at IS NULL
  ORDER BY
    enrollments.last_activity_at DESC,
    enrollments.user_id DESC
  LIMIT ?
  OFFSET ?
) AS anon_1
ORDER BY
  last_activity_at DESC,
  user_id DESC
LIMIT ?
OFFSET ?;

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
    enrollments.module_id = ?
    AND enrollments.status = ?
    AND enrollments.last_activity_at IS NULL
  ORDER BY
    enrollments.last_activity_at DESC,
    enrollments.user_id DESC
  LIMIT ?
  OFFSET ?
) AS anon_1
ORDER BY
  last_activity_at DESC,
  user_id DESC
LIMIT ?
OFFSET ?;

COMMIT;


-- GET /api/progress/stats/{moduleId}/learners, filtered
-- =====================================================

PRAGMA busy_timeout = 500;

BEGIN;

-- analytics.queries.module, as above

-- analytics.queries.known_contents: Find which of these are contents of a module, retired ones too.
SELECT
  contents.id
FROM contents
WHERE
  contents.module_id = ? AND contents.id IN (?, ?);

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
    enrollments.weighted_sum + CASE WHEN (
      enrollments.status = ?
    ) THEN ? ELSE ? END AS weighted_sum,
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
    enrollments.module_id = ?
    AND enrollments.status IN ('active', 'paused')
    AND enrollments.last_content_id = ?
    AND enrollments.status IN ('active', 'paused')
    AND enrollments.counted = 1
    AND enrollments.last_is_excused = 0
    AND enrollments.last_activity_at <= ?
    AND (
      EXISTS(
        SELECT
          *
        FROM progress_records
        WHERE
          progress_records.user_id = enrollments.user_id
          AND progress_records.module_id = enrollments.module_id
          AND progress_records.content_id = ?
          AND progress_records.excused_at IS NULL
          AND progress_records.completed_at IS NULL
      )
    )
    AND enrollments.user_id IN (?, ?)
  LIMIT ?
  OFFSET 0
) AS anon_1
ORDER BY
  anon_1.weighted_sum,
  anon_1.user_id
LIMIT ?
OFFSET ?;

COMMIT;


-- GET /api/progress/stats/{moduleId}/learners, of a content
-- =========================================================

PRAGMA busy_timeout = 500;

BEGIN;

-- analytics.queries.module, as above

-- analytics.queries.known_contents (2): Find which of these are contents of a module, retired ones too.
SELECT
  contents.id
FROM contents
WHERE
  contents.module_id = ? AND contents.id IN (?);

-- analytics.roster._walk (3): List the first learners behind a position as they come in the order; None if too many
-- others come before.
SELECT
  CASE WHEN (
    anon_1.place <= ?
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
        enrollments.module_id = ? AND enrollments.status = ?
      ORDER BY
        enrollments.weighted_sum,
        enrollments.user_id
      LIMIT ?
      OFFSET ?
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
        enrollments.module_id = ? AND enrollments.status = ?
      ORDER BY
        enrollments.weighted_sum,
        enrollments.user_id
      LIMIT ?
      OFFSET ?
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
        enrollments.module_id = ? AND enrollments.status = ?
      ORDER BY
        enrollments.weighted_sum,
        enrollments.user_id
      LIMIT ?
      OFFSET ?
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
        enrollments.module_id = ? AND enrollments.status = ?
      ORDER BY
        enrollments.weighted_sum,
        enrollments.user_id
      LIMIT ?
      OFFSET ?
    ) AS anon_6
  ) AS anon_2
  ORDER BY
    anon_2.weighted_sum,
    anon_2.user_id
  LIMIT ?
  OFFSET ?
) AS anon_1
WHERE
  anon_1.place > ?
  OR (
    EXISTS(
      SELECT
        *
      FROM progress_records
      WHERE
        progress_records.user_id = anon_1.user_id
        AND progress_records.module_id = anon_1.module_id
        AND progress_records.content_id = ?
        AND progress_records.excused_at IS NULL
        AND progress_records.completed_at IS NULL
    )
  )
ORDER BY
  anon_1.weighted_sum,
  anon_1.user_id
LIMIT ?
OFFSET ?;

COMMIT;


-- GET /api/progress/stats/{moduleId}/learners.csv
-- ===============================================

PRAGMA busy_timeout = 500;

BEGIN;

-- analytics.queries.module, as above

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
    enrollments.module_id = ? AND enrollments.status = ?
  ORDER BY
    enrollments.user_id
  LIMIT ?
  OFFSET ?
) AS anon_1
ORDER BY
  user_id
LIMIT ?
OFFSET ?;

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
    enrollments.module_id = ?
    AND enrollments.status = ?
    AND (
      enrollments.user_id
    ) > (
      ?
    )
  ORDER BY
    enrollments.user_id
  LIMIT ?
  OFFSET ?
) AS anon_1
ORDER BY
  user_id
LIMIT ?
OFFSET ?;

COMMIT;


-- GET /api/progress/stats/{moduleId}/matrix
-- =========================================

PRAGMA busy_timeout = 500;

BEGIN;

-- analytics.queries.module, as above

-- analytics.matrix.contents: List the current contents of a module in their order.
SELECT
  contents.id,
  contents.title
FROM contents
WHERE
  contents.module_id = ? AND contents.retired = 0
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
    enrollments.module_id = ? AND enrollments.status = ?
  ORDER BY
    enrollments.user_id
  LIMIT ?
  OFFSET ?
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
    enrollments.module_id = ? AND enrollments.status = ?
  ORDER BY
    enrollments.user_id
  LIMIT ?
  OFFSET ?
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
    enrollments.module_id = ? AND enrollments.status = ?
  ORDER BY
    enrollments.user_id
  LIMIT ?
  OFFSET ?
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
    enrollments.module_id = ? AND enrollments.status = ?
  ORDER BY
    enrollments.user_id
  LIMIT ?
  OFFSET ?
) AS anon_4
ORDER BY
  user_id
LIMIT ?
OFFSET ?;

-- statements.read_records: Read the records under the enrollments of the keys.
SELECT
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
FROM (
  SELECT
    JSON_EXTRACT(enrollment_keys_json.value, '$[0]') AS user_id,
    JSON_EXTRACT(enrollment_keys_json.value, '$[1]') AS module_id,
    JSON_EXTRACT(enrollment_keys_json.value, '$[2]') AS enrolled_at
  FROM JSON_EACH(?) AS enrollment_keys_json
) AS enrollment_keys
JOIN progress_records
  ON progress_records.user_id = enrollment_keys.user_id
WHERE
  CAST(progress_records.module_id AS TEXT) = enrollment_keys.module_id;

COMMIT;


-- GET /api/progress/stats/{moduleId}/matrix.csv
-- =============================================

PRAGMA busy_timeout = 500;

BEGIN;

-- analytics.queries.module, as above

-- analytics.matrix.contents, as above

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
    enrollments.module_id = ?
    AND enrollments.status = ?
    AND (
      enrollments.user_id
    ) > (
      ?
    )
  ORDER BY
    enrollments.user_id
  LIMIT ?
  OFFSET ?
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
    enrollments.module_id = ?
    AND enrollments.status = ?
    AND (
      enrollments.user_id
    ) > (
      ?
    )
  ORDER BY
    enrollments.user_id
  LIMIT ?
  OFFSET ?
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
    enrollments.module_id = ?
    AND enrollments.status = ?
    AND (
      enrollments.user_id
    ) > (
      ?
    )
  ORDER BY
    enrollments.user_id
  LIMIT ?
  OFFSET ?
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
    enrollments.module_id = ?
    AND enrollments.status = ?
    AND (
      enrollments.user_id
    ) > (
      ?
    )
  ORDER BY
    enrollments.user_id
  LIMIT ?
  OFFSET ?
) AS anon_4
ORDER BY
  user_id
LIMIT ?
OFFSET ?;

COMMIT;


-- GET /api/progress/stats/{moduleId}/timeline
-- ===========================================

PRAGMA busy_timeout = 500;

BEGIN;

-- analytics.queries.module, as above

-- analytics.queries.days: Add up the tallies of each day from the first to the last; days without activity are left
-- out.
SELECT
  tallies.item,
  CAST(SUM(tallies.learners) AS INTEGER) AS sum_1,
  CAST(SUM(tallies.started) AS INTEGER) AS sum_2,
  CAST(SUM(tallies.completed) AS INTEGER) AS sum_3,
  CAST(SUM(tallies.enrollments_completed) AS INTEGER) AS sum_4,
  CAST(SUM(tallies.time_spent_seconds) AS INTEGER) AS sum_5,
  CAST(SUM(tallies.weighted_sum) AS INTEGER) AS sum_6,
  CAST(SUM(tallies.scored) AS INTEGER) AS sum_7,
  CAST(SUM(tallies.score_hundredths) AS INTEGER) AS sum_8
FROM tallies
WHERE
  tallies.module_id = ? AND tallies.kind IN ('day') AND tallies.item BETWEEN ? AND ?
GROUP BY
  tallies.item;

COMMIT;


-- GET /api/progress/stats/{moduleId}/report
-- =========================================

PRAGMA busy_timeout = 500;

BEGIN;

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
    enrollments.module_id = ?
    AND enrollments.status = ?
    AND enrollments.counted = 1
    AND NOT enrollments.last_activity_at IS NULL
    AND enrollments.last_activity_at <= ?
  ORDER BY
    enrollments.last_activity_at DESC,
    enrollments.user_id DESC
  LIMIT ?
  OFFSET ?
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
    enrollments.module_id = ?
    AND enrollments.status = ?
    AND enrollments.counted = 1
    AND NOT enrollments.last_activity_at IS NULL
    AND enrollments.last_activity_at <= ?
  ORDER BY
    enrollments.last_activity_at DESC,
    enrollments.user_id DESC
  LIMIT ?
  OFFSET ?
) AS anon_2
ORDER BY
  last_activity_at DESC,
  user_id DESC
LIMIT ?
OFFSET ?;

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
    enrollments.module_id = ?
    AND enrollments.status = ?
    AND enrollments.counted = 1
    AND enrollments.last_activity_at IS NULL
    AND enrollments.enrolled_at <= ?
  ORDER BY
    enrollments.last_activity_at DESC,
    enrollments.user_id DESC
  LIMIT ?
  OFFSET ?
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
    enrollments.module_id = ?
    AND enrollments.status = ?
    AND enrollments.counted = 1
    AND enrollments.last_activity_at IS NULL
    AND enrollments.enrolled_at <= ?
  ORDER BY
    enrollments.last_activity_at DESC,
    enrollments.user_id DESC
  LIMIT ?
  OFFSET ?
) AS anon_2
ORDER BY
  last_activity_at DESC,
  user_id DESC
LIMIT ?
OFFSET ?;

-- analytics.queries.days, as above

-- analytics.roster.count: Count all learners, by filters that the order of the last activity answers.
SELECT
  ? + (
    SELECT
      COUNT(*) AS count_1
    FROM enrollments
    WHERE
      enrollments.module_id = ?
      AND enrollments.status = ?
      AND enrollments.counted = 1
      AND enrollments.last_activity_at IS NULL
      AND enrollments.enrolled_at <= ?
  ) + (
    SELECT
      COUNT(*) AS count_2
    FROM enrollments
    WHERE
      enrollments.module_id = ?
      AND enrollments.status = ?
      AND enrollments.counted = 1
      AND NOT enrollments.last_activity_at IS NULL
      AND enrollments.last_activity_at <= ?
  ) + (
    SELECT
      COUNT(*) AS count_3
    FROM enrollments
    WHERE
      enrollments.module_id = ?
      AND enrollments.status = ?
      AND enrollments.counted = 1
      AND enrollments.last_activity_at IS NULL
      AND enrollments.enrolled_at <= ?
  ) + (
    SELECT
      COUNT(*) AS count_4
    FROM enrollments
    WHERE
      enrollments.module_id = ?
      AND enrollments.status = ?
      AND enrollments.counted = 1
      AND NOT enrollments.last_activity_at IS NULL
      AND enrollments.last_activity_at <= ?
  ) AS anon_1;

COMMIT;


-- GET /api/catalog/modules, by an instructor
-- ==========================================

PRAGMA busy_timeout = 500;

BEGIN;

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
  module_instructors.user_id = ?
ORDER BY
  modules.id;

COMMIT;


-- GET /api/catalog/modules/{moduleId}
-- ===================================

PRAGMA busy_timeout = 500;

BEGIN;

-- store.publishing.published, as above

-- store.publishing.published (2), as above

-- store.publishing.published (3), as above

COMMIT;


-- PUT /api/catalog/modules/{moduleId}, other weights
-- ==================================================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

-- store.publishing._owners, as above

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

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

-- store.publishing._owners, as above

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
                enrollments.module_id = ? AND enrollments.counted = 0
            )
          )
          AND progress_records.excused_at IS NULL
        )
        THEN ?
        ELSE ?
      END
    ),
    ?
  ) AS INTEGER) AS number
FROM progress_records
CROSS JOIN contents
WHERE
  progress_records.module_id = ?
  AND progress_records.content_id = contents.id
  AND progress_records.completed_at IS NULL
  AND progress_records.furthest_percentage >= contents.completion_threshold
  AND (
    contents.passing_score IS NULL
    OR progress_records.score * ? >= contents.passing_score * progress_records.max_score
  )
  AND progress_records.content_id IN (
    SELECT
      ids.id
    FROM (
      SELECT
        JSON_EXTRACT(ids_json.value, '$[0]') AS id
      FROM JSON_EACH(?) AS ids_json
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
  COALESCE((
    SELECT
      MAX(order_offset)
    FROM arrivals
  ), 0) AS settled_after,
  ? AS type,
  ? AS time,
  ? AS recorded_at,
  progress_records.user_id AS user_id,
  progress_records.module_id AS module_id,
  progress_records.content_id AS content_id,
  ? AS by_sub,
  ? AS by_role,
  JSON_OBJECT(
    'scorePercentage', (
      (
        progress_records.score * ?
      ) / progress_records.max_score
    ) / (
      100.0 + 0.0
    )
  ) AS data,
  1 AS is_history
FROM progress_records
CROSS JOIN contents
WHERE
  progress_records.module_id = ?
  AND progress_records.content_id = contents.id
  AND progress_records.completed_at IS NULL
  AND progress_records.furthest_percentage >= contents.completion_threshold
  AND (
    contents.passing_score IS NULL
    OR progress_records.score * ? >= contents.passing_score * progress_records.max_score
  )
  AND progress_records.content_id IN (
    SELECT
      ids.id
    FROM (
      SELECT
        JSON_EXTRACT(ids_json.value, '$[0]') AS id
      FROM JSON_EACH(?) AS ids_json
    ) AS ids
  )
ORDER BY
  user_id,
  content_id;

-- store.recount.completions (2): Complete the records of a module that fulfil the rule of their content, for all or
-- some contents and learners.
UPDATE progress_records SET progress_percentage = ?, completed_at = ?
FROM contents
WHERE
  progress_records.module_id = ?
  AND progress_records.content_id = contents.id
  AND progress_records.completed_at IS NULL
  AND progress_records.furthest_percentage >= contents.completion_threshold
  AND (
    contents.passing_score IS NULL
    OR progress_records.score * ? >= contents.passing_score * progress_records.max_score
  )
  AND progress_records.content_id IN (
    SELECT
      ids.id
    FROM (
      SELECT
        JSON_EXTRACT(ids_json.value, '$[0]') AS id
      FROM JSON_EACH(?) AS ids_json
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
        AND NOT progress_records.excused_at IS NULL
    ) AS last_is_excused
  FROM (
    SELECT
      enrollments.user_id AS user_id,
      CAST(COALESCE(summed.weighted_sum, ?) AS INTEGER) AS weighted_sum,
      CAST(COALESCE(summed.completed_contents, ?) AS INTEGER) AS completed_contents,
      CAST(COALESCE(summed.time_spent_seconds, ?) AS INTEGER) AS time_spent_seconds,
      CASE
        WHEN (
          enrollments.enrolled_by_update = 1
          AND summed.started_at < enrollments.enrolled_at
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
              ) = ?
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
            ) = ?
            AND progress_records.last_activity_at = summed.last_activity_at
        )
      END AS last_content_id
    FROM enrollments
    LEFT OUTER JOIN (
      SELECT
        progress_records.user_id AS user_id,
        SUM(
          CASE
            WHEN contents.retired = 0
            THEN CAST(contents.weight AS INTEGER) * progress_records.progress_percentage
            ELSE ?
          END
        ) AS weighted_sum,
        SUM(
          CASE
            WHEN (
              contents.retired = 0
              AND contents.weight > ?
              AND (
                NOT progress_records.completed_at IS NULL
                OR NOT progress_records.excused_at IS NULL
              )
            )
            THEN ?
            ELSE ?
          END
        ) AS completed_contents,
        SUM(progress_records.time_spent_seconds) AS time_spent_seconds,
        MIN(progress_records.started_at) AS started_at,
        MAX(progress_records.last_activity_at) AS last_activity_at
      FROM progress_records
      JOIN contents
        ON contents.id = progress_records.content_id
      WHERE
        progress_records.module_id = ?
      GROUP BY
        progress_records.user_id
    ) AS summed
      ON summed.user_id = enrollments.user_id
    WHERE
      enrollments.module_id = ?
  ) AS dated
) AS counted
WHERE
  enrollments.module_id = ?
  AND enrollments.user_id = counted.user_id
  AND (
    enrollments.weighted_sum IS NOT counted.weighted_sum
    OR enrollments.completed_contents IS NOT counted.completed_contents
  );

-- store.recount._complete, as above

-- store.journal.write_selected, as above

-- store.recount._complete (2), as above

-- store.recount.tallies, as above

-- statements.store_tallies, as above

COMMIT;


-- GET /api/enrollments/{userId}/{moduleId}
-- ========================================

PRAGMA busy_timeout = 500;

BEGIN;

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
  enrollments.user_id = ? AND enrollments.module_id = ?;

COMMIT;


-- PUT /api/enrollments/{userId}/{moduleId}, no longer counted
-- ===========================================================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

-- statements.lock_modules: Share the locks of the modules of the enrollment keys.
SELECT DISTINCT
  enrollment_keys.module_id
FROM (
  SELECT
    JSON_EXTRACT(enrollment_keys_json.value, '$[0]') AS user_id,
    JSON_EXTRACT(enrollment_keys_json.value, '$[1]') AS module_id,
    JSON_EXTRACT(enrollment_keys_json.value, '$[2]') AS enrolled_at
  FROM JSON_EACH(?) AS enrollment_keys_json
) AS enrollment_keys;

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
  ? AS status,
  learners.enrolled_at AS enrolled_at,
  ? AS enrolled_by_update,
  1 AS counted,
  ? AS weighted_sum,
  ? AS completed_contents,
  ? AS time_spent_seconds
FROM (
  SELECT
    enrollment_keys.user_id AS user_id,
    enrollment_keys.module_id AS module_id,
    enrollment_keys.enrolled_at AS enrolled_at
  FROM (
    SELECT
      JSON_EXTRACT(enrollment_keys_json.value, '$[0]') AS user_id,
      JSON_EXTRACT(enrollment_keys_json.value, '$[1]') AS module_id,
      JSON_EXTRACT(enrollment_keys_json.value, '$[2]') AS enrolled_at
    FROM JSON_EACH(?) AS enrollment_keys_json
  ) AS enrollment_keys
  WHERE
    enrollment_keys.module_id IN (
      SELECT
        modules.id
      FROM modules
    )
) AS learners
WHERE
  1 = 1
ORDER BY
  learners.user_id,
  learners.module_id ON CONFLICT(user_id, module_id) DO UPDATE SET status = enrollments.status
WHERE
  0
RETURNING user_id, module_id;

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
    JSON_EXTRACT(enrollment_keys_json.value, '$[0]') AS user_id,
    JSON_EXTRACT(enrollment_keys_json.value, '$[1]') AS module_id,
    JSON_EXTRACT(enrollment_keys_json.value, '$[2]') AS enrolled_at
  FROM JSON_EACH(?) AS enrollment_keys_json
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
    JSON_EXTRACT(enrollment_keys_json.value, '$[0]') AS user_id,
    JSON_EXTRACT(enrollment_keys_json.value, '$[1]') AS module_id,
    JSON_EXTRACT(enrollment_keys_json.value, '$[2]') AS enrolled_at
  FROM JSON_EACH(?) AS enrollment_keys_json
) AS enrollment_keys
  ON activity_days.user_id = enrollment_keys.user_id
  AND activity_days.module_id = enrollment_keys.module_id;

-- statements.store, as above

-- statements.store (2), as above

-- statements.store (3), as above

-- statements.store_tallies, as above

-- statements.write_changes, as above

COMMIT;


-- GET /api/progress/{userId}/export
-- =================================

PRAGMA busy_timeout = 500;

BEGIN;

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
  imported_enrollments.user_id = ?
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
  progress_records.user_id = ?
ORDER BY
  progress_records.started_at NULLS LAST,
  progress_records.id;

-- progress.queries.activity_days: List a learner's days of activity.
SELECT
  activity_days.user_id,
  activity_days.module_id,
  activity_days.day,
  activity_days.time_spent_seconds
FROM activity_days
WHERE
  activity_days.user_id = ?
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
  sessions.user_id = ?
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
  changes.user_id = ? OR type = 'learner.merged' AND changes.data = ?
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
  module_instructors.user_id = ?
ORDER BY
  modules.id;

-- progress.queries.stored_answers: List the stored answers that a user got, and those that name the user.
SELECT
  stored_answers.caller_id,
  stored_answers."key",
  stored_answers.fingerprint,
  stored_answers.status,
  stored_answers.body,
  stored_answers.learner_id,
  stored_answers.stored_at
FROM stored_answers
WHERE
  stored_answers.caller_id = ?
  OR stored_answers.learner_id = ?
  OR stored_answers.learner_id IS NULL
  AND INSTR(stored_answers.body, ?) > ?
ORDER BY
  stored_answers.stored_at,
  stored_answers."key";

COMMIT;


-- PATCH /api/progress/{recordId}
-- ==============================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

-- store.corrections.correct: Replace values of a record (see `calculations.correct`), of a learner if the caller
-- knows whose it is.
SELECT
  progress_records.user_id,
  progress_records.module_id,
  progress_records.content_id
FROM progress_records
WHERE
  progress_records.id = ?;

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
    JSON_EXTRACT(enrollment_keys_json.value, '$[0]') AS user_id,
    JSON_EXTRACT(enrollment_keys_json.value, '$[1]') AS module_id,
    JSON_EXTRACT(enrollment_keys_json.value, '$[2]') AS enrolled_at
  FROM JSON_EACH(?) AS enrollment_keys_json
) AS enrollment_keys
  ON enrollments.user_id = enrollment_keys.user_id
  AND enrollments.module_id = enrollment_keys.module_id
ORDER BY
  enrollments.user_id,
  enrollments.module_id;

-- statements.read_records, as above

-- statements.read_days, as above

-- statements.read_sessions_of_records: Read the sessions of the records under the enrollments of the keys.
SELECT
  sessions.user_id,
  sessions.content_id,
  sessions.session,
  sessions.time_spent_seconds,
  sessions.received_at
FROM (
  SELECT
    JSON_EXTRACT(enrollment_keys_json.value, '$[0]') AS user_id,
    JSON_EXTRACT(enrollment_keys_json.value, '$[1]') AS module_id,
    JSON_EXTRACT(enrollment_keys_json.value, '$[2]') AS enrolled_at
  FROM JSON_EACH(?) AS enrollment_keys_json
) AS enrollment_keys
JOIN progress_records
  ON progress_records.user_id = enrollment_keys.user_id
JOIN sessions
  ON sessions.user_id = progress_records.user_id
  AND sessions.content_id = progress_records.content_id
WHERE
  CAST(progress_records.module_id AS TEXT) = enrollment_keys.module_id;

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
        JSON_EXTRACT(enrollment_keys_json.value, '$[0]') AS user_id,
        JSON_EXTRACT(enrollment_keys_json.value, '$[1]') AS module_id,
        JSON_EXTRACT(enrollment_keys_json.value, '$[2]') AS enrolled_at
      FROM JSON_EACH(?) AS enrollment_keys_json
    ) AS enrollment_keys
  );

-- store.corrections.correct, as above

-- statements.store, as above

-- statements.store (2), as above

-- statements.store (3), as above

-- statements.store_tallies, as above

-- statements.write_changes, as above

COMMIT;


-- PUT /api/progress/{userId}/{moduleId}/{contentId}/excuse
-- ========================================================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

-- statements.lock_modules, as above

-- statements.lock_enrollments, as above

-- statements.read_enrollments, as above

-- statements.read_records, as above

-- statements.read_days, as above

-- statements.read_sessions_of_records, as above

-- statements.read_contents, as above

-- statements.store, as above

-- statements.store (2), as above

-- statements.store (3), as above

-- statements.store_tallies, as above

-- statements.write_changes, as above

COMMIT;


-- DELETE /api/progress/{userId}/{moduleId}/{contentId}/excuse
-- ===========================================================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

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
        JSON_EXTRACT(records_json.value, '$[0]') AS id,
        JSON_EXTRACT(records_json.value, '$[1]') AS user_id,
        JSON_EXTRACT(records_json.value, '$[2]') AS module_id,
        JSON_EXTRACT(records_json.value, '$[3]') AS content_id,
        JSON_EXTRACT(records_json.value, '$[4]') AS started_at,
        JSON_EXTRACT(records_json.value, '$[5]') AS last_activity_at,
        JSON_EXTRACT(records_json.value, '$[6]') AS furthest_percentage,
        JSON_EXTRACT(records_json.value, '$[7]') AS time_spent_seconds,
        JSON_EXTRACT(records_json.value, '$[8]') AS score,
        JSON_EXTRACT(records_json.value, '$[9]') AS max_score,
        JSON_EXTRACT(records_json.value, '$[10]') AS position,
        JSON_EXTRACT(records_json.value, '$[11]') AS position_at,
        JSON_EXTRACT(records_json.value, '$[12]') AS completed_at,
        JSON_EXTRACT(records_json.value, '$[13]') AS reached_at,
        JSON_EXTRACT(records_json.value, '$[14]') AS passed_at,
        JSON_EXTRACT(records_json.value, '$[15]') AS excused_at,
        JSON_EXTRACT(records_json.value, '$[16]') AS progress_percentage
      FROM JSON_EACH(?) AS records_json
    ) AS records
  );

-- statements.store, as above

-- statements.store (2), as above

-- statements.store (3), as above

-- statements.store_tallies, as above

-- statements.write_changes, as above

COMMIT;


-- DELETE /api/progress/{userId}/{moduleId}/{contentId}
-- ====================================================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

-- statements.lock_modules, as above

-- statements.lock_known_enrollments, as above

-- statements.read_records, as above

-- statements.read_days, as above

-- statements.read_sessions_of_records, as above

-- statements.read_contents, as above

-- statements.delete_records, as above

-- statements.store, as above

-- statements.store (2), as above

-- statements.store (3), as above

-- statements.store_tallies, as above

-- statements.write_changes, as above

COMMIT;


-- POST /api/progress/{userId}/merge
-- =================================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

-- statements.enrolled_modules: List the modules in which a learner is enrolled.
SELECT
  enrollments.module_id
FROM enrollments
WHERE
  enrollments.user_id = ?;

-- statements.lock_modules, as above

-- statements.lock_known_enrollments, as above

-- statements.lock_enrollments, as above

-- statements.read_enrollments, as above

-- statements.read_records, as above

-- statements.read_days, as above

-- statements.read_sessions_of_records, as above

-- statements.read_contents, as above

-- statements.enrolled_modules, as above

-- store.journal.rename: Give another learner what the journal tells of a learner and of who was merged into the
-- learner; keep erasures.
UPDATE changes SET by_sub = ?
WHERE
  by_role <> 'service' AND by_sub <> COALESCE(user_id, '') AND changes.by_sub = ?;

-- store.journal.rename (2): Give another learner what the journal tells of a learner and of who was merged into the
-- learner; keep erasures.
UPDATE changes SET data = ?
WHERE
  type = 'learner.merged' AND changes.data = ? AND changes.user_id <> ?;

-- store.journal.rename (3): Give another learner what the journal tells of a learner and of who was merged into the
-- learner; keep erasures.
UPDATE changes SET user_id = ?, by_sub = CASE WHEN (
  changes.by_sub = ?
) THEN ? ELSE changes.by_sub END
WHERE
  changes.user_id = ? AND (
    NOT changes.type IN (?, ?)
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
    JSON_EXTRACT(enrollment_keys_json.value, '$[0]') AS user_id,
    JSON_EXTRACT(enrollment_keys_json.value, '$[1]') AS module_id,
    JSON_EXTRACT(enrollment_keys_json.value, '$[2]') AS enrolled_at
  FROM JSON_EACH(?) AS enrollment_keys_json
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
        JSON_EXTRACT(days_json.value, '$[0]') AS user_id,
        JSON_EXTRACT(days_json.value, '$[1]') AS module_id,
        JSON_EXTRACT(days_json.value, '$[2]') AS day,
        JSON_EXTRACT(days_json.value, '$[3]') AS time_spent_seconds
      FROM JSON_EACH(?) AS days_json
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
        JSON_EXTRACT(enrollment_keys_json.value, '$[0]') AS user_id,
        JSON_EXTRACT(enrollment_keys_json.value, '$[1]') AS module_id,
        JSON_EXTRACT(enrollment_keys_json.value, '$[2]') AS enrolled_at
      FROM JSON_EACH(?) AS enrollment_keys_json
    ) AS enrollment_keys
  );

-- statements.store, as above

-- statements.store (2), as above

-- statements.store (3), as above

-- statements.store_tallies, as above

-- statements.write_changes, as above

-- web.idempotency.forget: Delete the answers to a user, and those that name that user.
DELETE FROM stored_answers
WHERE
  stored_answers.caller_id = ?
  OR stored_answers.learner_id = ?
  OR stored_answers.learner_id IS NULL
  AND INSTR(stored_answers.body, ?) > ?;

COMMIT;


-- DELETE /api/enrollments/{userId}/{moduleId}
-- ===========================================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

-- statements.lock_modules, as above

-- statements.lock_known_enrollments, as above

-- statements.read_records, as above

-- statements.read_days, as above

-- statements.read_sessions_of_records, as above

-- statements.read_contents, as above

-- statements.delete_enrollments, as above

-- statements.store, as above

-- statements.store (2), as above

-- statements.store (3), as above

-- statements.store_tallies, as above

-- statements.write_changes, as above

-- store.corrections.withdraw: Delete an enrollment with all that is recorded under it, and end its history.
UPDATE changes SET is_history = ?
WHERE
  changes.user_id = ? AND changes.module_id = ? AND changes.is_history = 1;

COMMIT;


-- DELETE /api/progress/{userId}/{moduleId}
-- ========================================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

-- statements.lock_modules, as above

-- statements.lock_known_enrollments, as above

-- statements.read_records, as above

-- statements.read_days, as above

-- statements.read_sessions_of_records, as above

-- statements.read_contents, as above

-- statements.delete_records, as above

-- statements.delete_days, as above

-- statements.store, as above

-- statements.store (2), as above

-- statements.store (3), as above

-- statements.store_tallies, as above

-- statements.write_changes, as above

COMMIT;


-- DELETE /api/progress/{userId}
-- =============================

PRAGMA busy_timeout = 500;

BEGIN IMMEDIATE;

-- statements.enrolled_modules, as above

-- statements.lock_modules, as above

-- statements.lock_known_enrollments, as above

-- statements.read_records, as above

-- statements.read_days, as above

-- statements.read_sessions_of_records, as above

-- statements.read_contents, as above

-- statements.enrolled_modules, as above

-- store.journal.forget: Delete what the journal tells of a learner, and of those who were merged into the learner;
-- keep erasures.
DELETE FROM changes
WHERE
  changes.user_id = ? AND changes.type <> ?;

-- store.journal.forget (2): Delete what the journal tells of a learner, and of those who were merged into the
-- learner; keep erasures.
DELETE FROM changes
WHERE
  type = 'learner.merged' AND changes.data = ?
RETURNING user_id;

-- store.journal.forget (2), as above

-- store.journal.rename, as above

-- statements.delete_records, as above

-- statements.delete_days, as above

-- statements.delete_enrollments, as above

-- statements.store, as above

-- statements.store (2), as above

-- statements.store (3), as above

-- statements.store_tallies, as above

-- statements.write_changes, as above

-- web.idempotency.forget, as above

COMMIT;


-- GET /readyz
-- ===========

PRAGMA busy_timeout = 500;

BEGIN;

PRAGMA main.table_info("alembic_version");

-- store.revisions.of: Return the revision of a database, or None if it has no schema.
SELECT
  version_num
FROM alembic_version;

COMMIT;

PRAGMA busy_timeout = 500;

BEGIN;

-- store.arrivals.under_way: Tell how much of a dump is restored, if one has been begun and not ended.
SELECT
  arrivals.lines,
  arrivals.digest
FROM arrivals
WHERE
  NOT arrivals.digest IS NULL;

COMMIT;

PRAGMA busy_timeout = 500;

BEGIN;

-- operations.readiness.fault: Return why the service should get no requests, or None if it can work.
SELECT
  stored_answers."key"
FROM stored_answers
WHERE
  0 = 1;

-- operations.readiness.fault (2): Return why the service should get no requests, or None if it can work.
UPDATE stored_answers SET fingerprint = ?
WHERE
  0 = 1;

COMMIT;


-- flask progress import --enrollments
-- ===================================

PRAGMA busy_timeout = 300000;

BEGIN;

-- importing._begin: Read the file, and begin to store each chunk; if the file cannot be read, the last one fails with
-- the error.
SELECT
  imported_chunks.digest
FROM imported_chunks;

COMMIT;

PRAGMA busy_timeout = 300000;

BEGIN IMMEDIATE;

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
        JSON_EXTRACT(ids_json.value, '$[0]') AS id
      FROM JSON_EACH(?) AS ids_json
    ) AS ids
  );

-- importing._look (2): Return how many of the first lines of a chunk are stored.
SELECT
  imported_chunks.lines
FROM imported_chunks
WHERE
  imported_chunks.behind = ? AND SUBSTRING(imported_chunks.line_digests, ?, ?) = ?;

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
    JSON_EXTRACT(line_dates_json.value, '$[0]') AS user_id,
    JSON_EXTRACT(line_dates_json.value, '$[1]') AS module_id,
    JSON_EXTRACT(line_dates_json.value, '$[2]') AS status_told_at,
    JSON_EXTRACT(line_dates_json.value, '$[3]') AS enrolled_at_told_at,
    JSON_EXTRACT(line_dates_json.value, '$[4]') AS counted_told_at,
    JSON_EXTRACT(line_dates_json.value, '$[5]') AS completed_at_told_at
  FROM JSON_EACH(?) AS line_dates_json
) AS line_dates
WHERE
  1 = 1
ORDER BY
  line_dates.user_id,
  line_dates.module_id ON CONFLICT(user_id, module_id) DO UPDATE SET status_told_at = excluded.status_told_at, enrolled_at_told_at = excluded.enrolled_at_told_at, counted_told_at = excluded.counted_told_at, completed_at_told_at = excluded.completed_at_told_at
WHERE
  1 = 1;

-- statements.store, as above

-- statements.store (2), as above

-- statements.store (3), as above

-- statements.store_tallies, as above

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
  (?, ?, ?, ?, ?);

COMMIT;


-- flask progress verify
-- =====================

PRAGMA busy_timeout = 300000;

BEGIN;

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
  ? AS anon_2,
  modules.total_weight AS total_weight_1,
  denominators.total_weight AS total_weight_2,
  modules.total_contents AS total_contents_1,
  denominators.total_contents AS total_contents_2
FROM modules
CROSS JOIN (
  SELECT
    modules.id AS module_id,
    CAST(COALESCE(SUM(contents.weight), ?) AS INTEGER) AS total_weight,
    COUNT(contents.id) AS total_contents
  FROM modules
  LEFT OUTER JOIN contents
    ON contents.module_id = modules.id AND contents.retired = 0 AND contents.weight > ?
  WHERE
    modules.id = ?
  GROUP BY
    modules.id
) AS denominators
WHERE
  modules.id = denominators.module_id
  AND (
    modules.total_weight IS NOT denominators.total_weight
    OR modules.total_contents IS NOT denominators.total_contents
  );

-- store.verification._compare (2)
SELECT
  enrollments.user_id,
  ? AS anon_1,
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
      enrollments.status IN (?, ?)
      AND denominators.total_contents > ?
      AND counted.completed_contents = denominators.total_contents
    )
    THEN ?
    ELSE enrollments.status
  END AS anon_2
FROM enrollments
CROSS JOIN (
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
        AND NOT progress_records.excused_at IS NULL
    ) AS last_is_excused
  FROM (
    SELECT
      enrollments.user_id AS user_id,
      CAST(COALESCE(summed.weighted_sum, ?) AS INTEGER) AS weighted_sum,
      CAST(COALESCE(summed.completed_contents, ?) AS INTEGER) AS completed_contents,
      CAST(COALESCE(summed.time_spent_seconds, ?) AS INTEGER) AS time_spent_seconds,
      CASE
        WHEN (
          enrollments.enrolled_by_update = 1
          AND summed.started_at < enrollments.enrolled_at
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
              ) = ?
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
            ) = ?
            AND progress_records.last_activity_at = summed.last_activity_at
        )
      END AS last_content_id
    FROM enrollments
    LEFT OUTER JOIN (
      SELECT
        progress_records.user_id AS user_id,
        SUM(
          CASE
            WHEN contents.retired = 0
            THEN CAST(contents.weight AS INTEGER) * progress_records.progress_percentage
            ELSE ?
          END
        ) AS weighted_sum,
        SUM(
          CASE
            WHEN (
              contents.retired = 0
              AND contents.weight > ?
              AND (
                NOT progress_records.completed_at IS NULL
                OR NOT progress_records.excused_at IS NULL
              )
            )
            THEN ?
            ELSE ?
          END
        ) AS completed_contents,
        SUM(progress_records.time_spent_seconds) AS time_spent_seconds,
        MIN(progress_records.started_at) AS started_at,
        MAX(progress_records.last_activity_at) AS last_activity_at
      FROM progress_records
      JOIN contents
        ON contents.id = progress_records.content_id
      WHERE
        progress_records.module_id = ?
      GROUP BY
        progress_records.user_id
    ) AS summed
      ON summed.user_id = enrollments.user_id
    WHERE
      enrollments.module_id = ?
  ) AS dated
) AS counted
CROSS JOIN (
  SELECT
    modules.id AS module_id,
    CAST(COALESCE(SUM(contents.weight), ?) AS INTEGER) AS total_weight,
    COUNT(contents.id) AS total_contents
  FROM modules
  LEFT OUTER JOIN contents
    ON contents.module_id = modules.id AND contents.retired = 0 AND contents.weight > ?
  WHERE
    modules.id = ?
  GROUP BY
    modules.id
) AS denominators
WHERE
  enrollments.module_id = ?
  AND enrollments.user_id = counted.user_id
  AND enrollments.module_id = denominators.module_id
  AND (
    enrollments.weighted_sum IS NOT counted.weighted_sum
    OR enrollments.completed_contents IS NOT counted.completed_contents
    OR enrollments.time_spent_seconds IS NOT counted.time_spent_seconds
    OR enrollments.enrolled_at IS NOT counted.enrolled_at
    OR enrollments.last_activity_at IS NOT counted.last_activity_at
    OR enrollments.last_content_id IS NOT counted.last_content_id
    OR enrollments.last_is_excused IS NOT counted.last_is_excused
    OR enrollments.status IS NOT CASE
      WHEN (
        enrollments.status IN (?, ?)
        AND denominators.total_contents > ?
        AND counted.completed_contents = denominators.total_contents
      )
      THEN ?
      ELSE enrollments.status
    END
  );

-- store.verification._compare (3)
SELECT
  progress_records.user_id,
  progress_records.content_id || ? AS anon_1,
  progress_records.progress_percentage AS progress_percentage_1,
  ? AS anon_2
FROM progress_records
CROSS JOIN contents
WHERE
  progress_records.module_id = ?
  AND progress_records.content_id = contents.id
  AND progress_records.completed_at IS NULL
  AND progress_records.furthest_percentage >= contents.completion_threshold
  AND (
    contents.passing_score IS NULL
    OR progress_records.score * ? >= contents.passing_score * progress_records.max_score
  )
  AND progress_records.progress_percentage IS NOT ?;

-- store.verification._compare (4)
SELECT
  NULL AS anon_1,
  compared.kind || ? || compared.item || ? AS anon_2,
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
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 0
    ) THEN parts.learners ELSE ? END), ?) AS INTEGER) AS stored_learners,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 0
    ) THEN parts.started ELSE ? END), ?) AS INTEGER) AS stored_started,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 0
    ) THEN parts.completed ELSE ? END), ?) AS INTEGER) AS stored_completed,
    CAST(COALESCE(
      SUM(CASE WHEN (
        parts.recounted = 0
      ) THEN parts.enrollments_completed ELSE ? END),
      ?
    ) AS INTEGER) AS stored_enrollments_completed,
    CAST(COALESCE(
      SUM(CASE WHEN (
        parts.recounted = 0
      ) THEN parts.time_spent_seconds ELSE ? END),
      ?
    ) AS INTEGER) AS stored_time_spent_seconds,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 0
    ) THEN parts.weighted_sum ELSE ? END), ?) AS INTEGER) AS stored_weighted_sum,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 0
    ) THEN parts.scored ELSE ? END), ?) AS INTEGER) AS stored_scored,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 0
    ) THEN parts.score_hundredths ELSE ? END), ?) AS INTEGER) AS stored_score_hundredths,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 1
    ) THEN parts.learners ELSE ? END), ?) AS INTEGER) AS recounted_learners,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 1
    ) THEN parts.started ELSE ? END), ?) AS INTEGER) AS recounted_started,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 1
    ) THEN parts.completed ELSE ? END), ?) AS INTEGER) AS recounted_completed,
    CAST(COALESCE(
      SUM(CASE WHEN (
        parts.recounted = 1
      ) THEN parts.enrollments_completed ELSE ? END),
      ?
    ) AS INTEGER) AS recounted_enrollments_completed,
    CAST(COALESCE(
      SUM(CASE WHEN (
        parts.recounted = 1
      ) THEN parts.time_spent_seconds ELSE ? END),
      ?
    ) AS INTEGER) AS recounted_time_spent_seconds,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 1
    ) THEN parts.weighted_sum ELSE ? END), ?) AS INTEGER) AS recounted_weighted_sum,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 1
    ) THEN parts.scored ELSE ? END), ?) AS INTEGER) AS recounted_scored,
    CAST(COALESCE(SUM(CASE WHEN (
      parts.recounted = 1
    ) THEN parts.score_hundredths ELSE ? END), ?) AS INTEGER) AS recounted_score_hundredths
  FROM (
    SELECT
      ? AS recounted,
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
      tallies.module_id = ? AND tallies.kind IN (?, ?, ?, ?, ?, ?, ?)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(enrollments.status AS TEXT) AS item,
      COUNT(*) AS learners,
      COUNT(enrollments.last_activity_at) AS started,
      ? AS completed,
      ? AS enrollments_completed,
      SUM(enrollments.time_spent_seconds) AS time_spent_seconds,
      SUM(enrollments.weighted_sum) AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = ? AND enrollments.counted = 1
    GROUP BY
      CAST(enrollments.status AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(enrollments.weighted_sum / (
        SELECT
          COALESCE(NULLIF(modules.total_weight, ?), ?) AS coalesce_17
        FROM modules
        WHERE
          modules.id = ?
      ) AS TEXT) AS item,
      COUNT(*) AS learners,
      ? AS started,
      ? AS completed,
      ? AS enrollments_completed,
      ? AS time_spent_seconds,
      ? AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = ? AND enrollments.counted = 1 AND enrollments.status <> ?
    GROUP BY
      CAST(enrollments.weighted_sum / (
        SELECT
          COALESCE(NULLIF(modules.total_weight, ?), ?) AS coalesce_17
        FROM modules
        WHERE
          modules.id = ?
      ) AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(DATE(SUBSTRING(enrollments.last_activity_at, 1, 10), 'weekday 0', '-6 days') || ? || enrollments.last_content_id AS TEXT) AS item,
      COUNT(*) AS learners,
      ? AS started,
      ? AS completed,
      ? AS enrollments_completed,
      ? AS time_spent_seconds,
      ? AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = ?
      AND enrollments.counted = 1
      AND enrollments.status IN (?, ?)
      AND NOT enrollments.last_activity_at IS NULL
      AND enrollments.last_is_excused = 0
    GROUP BY
      CAST(DATE(SUBSTRING(enrollments.last_activity_at, 1, 10), 'weekday 0', '-6 days') || ? || enrollments.last_content_id AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(SUBSTRING(enrollments.last_activity_at, 1, 10) || ? || enrollments.last_content_id AS TEXT) AS item,
      COUNT(*) AS learners,
      ? AS started,
      ? AS completed,
      ? AS enrollments_completed,
      ? AS time_spent_seconds,
      ? AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = ?
      AND enrollments.counted = 1
      AND enrollments.status IN (?, ?)
      AND NOT enrollments.last_activity_at IS NULL
      AND enrollments.last_is_excused = 0
    GROUP BY
      CAST(SUBSTRING(enrollments.last_activity_at, 1, 10) || ? || enrollments.last_content_id AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(SUBSTRING(enrollments.completed_at, 1, 10) AS TEXT) AS item,
      ? AS learners,
      ? AS started,
      ? AS completed,
      COUNT(*) AS enrollments_completed,
      ? AS time_spent_seconds,
      ? AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM enrollments
    WHERE
      enrollments.module_id = ?
      AND enrollments.counted = 1
      AND NOT enrollments.completed_at IS NULL
    GROUP BY
      CAST(SUBSTRING(enrollments.completed_at, 1, 10) AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(progress_records.content_id AS TEXT) AS item,
      COUNT(*) AS learners,
      ? AS started,
      ? AS completed,
      ? AS enrollments_completed,
      ? AS time_spent_seconds,
      ? AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM progress_records
    WHERE
      progress_records.module_id = ?
      AND (
        NOT progress_records.user_id IN (
          SELECT
            enrollments.user_id
          FROM enrollments
          WHERE
            enrollments.module_id = ? AND enrollments.counted = 0
        )
      )
      AND NOT progress_records.excused_at IS NULL
    GROUP BY
      CAST(progress_records.content_id AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(progress_records.content_id AS TEXT) AS item,
      ? AS learners,
      COUNT(*) AS started,
      COUNT(progress_records.completed_at) AS completed,
      ? AS enrollments_completed,
      SUM(progress_records.time_spent_seconds) AS time_spent_seconds,
      ? AS weighted_sum,
      COUNT(progress_records.score) AS scored,
      COALESCE(SUM((
        progress_records.score * ?
      ) / progress_records.max_score), ?) AS score_hundredths
    FROM progress_records
    WHERE
      progress_records.module_id = ?
      AND (
        NOT progress_records.user_id IN (
          SELECT
            enrollments.user_id
          FROM enrollments
          WHERE
            enrollments.module_id = ? AND enrollments.counted = 0
        )
      )
      AND progress_records.excused_at IS NULL
    GROUP BY
      CAST(progress_records.content_id AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(SUBSTRING(progress_records.started_at, 1, 10) AS TEXT) AS item,
      ? AS learners,
      COUNT(*) AS started,
      ? AS completed,
      ? AS enrollments_completed,
      ? AS time_spent_seconds,
      ? AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM progress_records
    WHERE
      progress_records.module_id = ?
      AND (
        NOT progress_records.user_id IN (
          SELECT
            enrollments.user_id
          FROM enrollments
          WHERE
            enrollments.module_id = ? AND enrollments.counted = 0
        )
      )
      AND progress_records.excused_at IS NULL
    GROUP BY
      CAST(SUBSTRING(progress_records.started_at, 1, 10) AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(SUBSTRING(progress_records.completed_at, 1, 10) AS TEXT) AS item,
      ? AS learners,
      ? AS started,
      COUNT(*) AS completed,
      ? AS enrollments_completed,
      ? AS time_spent_seconds,
      ? AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM progress_records
    WHERE
      progress_records.module_id = ?
      AND (
        NOT progress_records.user_id IN (
          SELECT
            enrollments.user_id
          FROM enrollments
          WHERE
            enrollments.module_id = ? AND enrollments.counted = 0
        )
      )
      AND NOT progress_records.completed_at IS NULL
      AND progress_records.excused_at IS NULL
    GROUP BY
      CAST(SUBSTRING(progress_records.completed_at, 1, 10) AS TEXT)
    UNION ALL
    SELECT
      ? AS recounted,
      ? AS kind,
      CAST(activity_days.day AS TEXT) AS item,
      COUNT(*) AS learners,
      ? AS started,
      ? AS completed,
      ? AS enrollments_completed,
      SUM(activity_days.time_spent_seconds) AS time_spent_seconds,
      ? AS weighted_sum,
      ? AS scored,
      ? AS score_hundredths
    FROM activity_days
    CROSS JOIN enrollments
    WHERE
      enrollments.module_id = ?
      AND enrollments.counted = 1
      AND enrollments.user_id = activity_days.user_id
      AND activity_days.module_id = ?
    GROUP BY
      CAST(activity_days.day AS TEXT)
  ) AS parts
  GROUP BY
    parts.kind,
    parts.item
) AS compared
WHERE
  compared.stored_learners IS NOT compared.recounted_learners
  OR compared.stored_started IS NOT compared.recounted_started
  OR compared.stored_completed IS NOT compared.recounted_completed
  OR compared.stored_enrollments_completed IS NOT compared.recounted_enrollments_completed
  OR compared.stored_time_spent_seconds IS NOT compared.recounted_time_spent_seconds
  OR compared.stored_weighted_sum IS NOT compared.recounted_weighted_sum
  OR compared.stored_scored IS NOT compared.recounted_scored
  OR compared.stored_score_hundredths IS NOT compared.recounted_score_hundredths;

-- store.verification._compare, as above

-- store.verification._compare (2), as above

-- store.verification._compare (3), as above

-- store.verification._compare (4), as above

COMMIT;

PRAGMA busy_timeout = 300000;

BEGIN IMMEDIATE;

-- store.verification.note: Store the last comparison in the place of earlier ones.
DELETE FROM verifications
WHERE
  verifications.verified_at <= ?;

-- store.verification.note (2): Store the last comparison in the place of earlier ones.
INSERT INTO verifications (
  verified_at,
  drifts
)
VALUES
  (?, ?);

COMMIT;


-- flask progress verify --repair, of a learner
-- ============================================

PRAGMA busy_timeout = 300000;

BEGIN;

-- store.verification.drifts, as above

-- store.verification._compare, as above

-- store.verification._compare (2), as above

-- store.verification._compare (3), as above

-- store.verification._compare (4), as above

-- store.verification._compare, as above

-- store.verification._compare (2), as above

-- store.verification._compare (3), as above

-- store.verification._compare (4), as above

PRAGMA busy_timeout = 300000;

BEGIN IMMEDIATE;

-- statements.lock_modules, as above

-- store.verification.repair: Store the recount of a module's totals where they differ.
SELECT
  enrollments.user_id
FROM enrollments
WHERE
  enrollments.module_id = ? AND enrollments.user_id IN (?)
ORDER BY
  enrollments.user_id;

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
                enrollments.module_id = ? AND enrollments.counted = 0
            )
          )
          AND progress_records.excused_at IS NULL
        )
        THEN ?
        ELSE ?
      END
    ),
    ?
  ) AS INTEGER) AS number
FROM progress_records
CROSS JOIN contents
WHERE
  progress_records.module_id = ?
  AND progress_records.content_id = contents.id
  AND progress_records.completed_at IS NULL
  AND progress_records.furthest_percentage >= contents.completion_threshold
  AND (
    contents.passing_score IS NULL
    OR progress_records.score * ? >= contents.passing_score * progress_records.max_score
  )
  AND progress_records.user_id IN (?)
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
        AND NOT progress_records.excused_at IS NULL
    ) AS last_is_excused
  FROM (
    SELECT
      enrollments.user_id AS user_id,
      CAST(COALESCE(summed.weighted_sum, ?) AS INTEGER) AS weighted_sum,
      CAST(COALESCE(summed.completed_contents, ?) AS INTEGER) AS completed_contents,
      CAST(COALESCE(summed.time_spent_seconds, ?) AS INTEGER) AS time_spent_seconds,
      CASE
        WHEN (
          enrollments.enrolled_by_update = 1
          AND summed.started_at < enrollments.enrolled_at
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
              ) = ?
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
            ) = ?
            AND progress_records.last_activity_at = summed.last_activity_at
        )
      END AS last_content_id
    FROM enrollments
    LEFT OUTER JOIN (
      SELECT
        progress_records.user_id AS user_id,
        SUM(
          CASE
            WHEN contents.retired = 0
            THEN CAST(contents.weight AS INTEGER) * progress_records.progress_percentage
            ELSE ?
          END
        ) AS weighted_sum,
        SUM(
          CASE
            WHEN (
              contents.retired = 0
              AND contents.weight > ?
              AND (
                NOT progress_records.completed_at IS NULL
                OR NOT progress_records.excused_at IS NULL
              )
            )
            THEN ?
            ELSE ?
          END
        ) AS completed_contents,
        SUM(progress_records.time_spent_seconds) AS time_spent_seconds,
        MIN(progress_records.started_at) AS started_at,
        MAX(progress_records.last_activity_at) AS last_activity_at
      FROM progress_records
      JOIN contents
        ON contents.id = progress_records.content_id
      WHERE
        progress_records.module_id = ?
      GROUP BY
        progress_records.user_id
    ) AS summed
      ON summed.user_id = enrollments.user_id
    WHERE
      enrollments.module_id = ?
  ) AS dated
) AS counted
WHERE
  enrollments.module_id = ?
  AND enrollments.user_id IN (?)
  AND enrollments.user_id = counted.user_id
  AND (
    enrollments.weighted_sum IS NOT counted.weighted_sum
    OR enrollments.completed_contents IS NOT counted.completed_contents
    OR enrollments.time_spent_seconds IS NOT counted.time_spent_seconds
    OR enrollments.enrolled_at IS NOT counted.enrolled_at
    OR enrollments.last_activity_at IS NOT counted.last_activity_at
    OR enrollments.last_content_id IS NOT counted.last_content_id
    OR enrollments.last_is_excused IS NOT counted.last_is_excused
  );

-- store.recount._complete (3): Complete the enrollments that are complete, and return how many of them count in
-- statistics.
SELECT
  COUNT(*) AS count_1
FROM enrollments
WHERE
  enrollments.module_id = ?
  AND enrollments.user_id IN (?)
  AND (
    EXISTS(
      SELECT
        modules.id
      FROM modules
      WHERE
        modules.id = ?
        AND enrollments.status IN (?, ?)
        AND modules.total_contents > ?
        AND enrollments.completed_contents = modules.total_contents
    )
  )
  AND enrollments.counted = 1;

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
  COALESCE((
    SELECT
      MAX(order_offset)
    FROM arrivals
  ), 0) AS settled_after,
  ? AS type,
  ? AS time,
  ? AS recorded_at,
  enrollments.user_id AS user_id,
  enrollments.module_id AS module_id,
  NULL AS content_id,
  ? AS by_sub,
  ? AS by_role,
  JSON_OBJECT('progressPercentage', 100.0) AS data,
  1 AS is_history
FROM enrollments
WHERE
  enrollments.module_id = ?
  AND enrollments.user_id IN (?)
  AND (
    EXISTS(
      SELECT
        modules.id
      FROM modules
      WHERE
        modules.id = ?
        AND enrollments.status IN (?, ?)
        AND modules.total_contents > ?
        AND enrollments.completed_contents = modules.total_contents
    )
  )
ORDER BY
  user_id,
  content_id;

-- store.recount._complete (4): Complete the enrollments that are complete, and return how many of them count in
-- statistics.
UPDATE enrollments SET status = ?, completed_at = ?
WHERE
  enrollments.module_id = ?
  AND enrollments.user_id IN (?)
  AND (
    EXISTS(
      SELECT
        modules.id
      FROM modules
      WHERE
        modules.id = ?
        AND enrollments.status IN (?, ?)
        AND modules.total_contents > ?
        AND enrollments.completed_contents = modules.total_contents
    )
  );

COMMIT;

PRAGMA busy_timeout = 300000;

BEGIN IMMEDIATE;

-- statements.lock_modules, as above

-- store.recount.tallies (2), as above

COMMIT;

COMMIT;

PRAGMA busy_timeout = 300000;

BEGIN IMMEDIATE;

-- store.verification.note, as above

-- store.verification.note (2), as above

COMMIT;


-- flask progress verify --repair, of a module
-- ===========================================

PRAGMA busy_timeout = 300000;

BEGIN;

-- store.verification.drifts, as above

-- store.verification._compare, as above

-- store.verification._compare (2), as above

-- store.verification._compare (3), as above

-- store.verification._compare (4), as above

-- store.verification._compare, as above

PRAGMA busy_timeout = 300000;

BEGIN IMMEDIATE;

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
                enrollments.module_id = ? AND enrollments.counted = 0
            )
          )
          AND progress_records.excused_at IS NULL
        )
        THEN ?
        ELSE ?
      END
    ),
    ?
  ) AS INTEGER) AS number
FROM progress_records
CROSS JOIN contents
WHERE
  progress_records.module_id = ?
  AND progress_records.content_id = contents.id
  AND progress_records.completed_at IS NULL
  AND progress_records.furthest_percentage >= contents.completion_threshold
  AND (
    contents.passing_score IS NULL
    OR progress_records.score * ? >= contents.passing_score * progress_records.max_score
  )
GROUP BY
  progress_records.content_id;

-- store.recount.totals, as above

-- store.recount._complete, as above

-- store.journal.write_selected, as above

-- store.recount._complete (2), as above

COMMIT;

PRAGMA busy_timeout = 300000;

BEGIN IMMEDIATE;

-- statements.lock_modules, as above

-- store.recount.tallies (2), as above

COMMIT;

-- store.verification._compare (2), as above

-- store.verification._compare (3), as above

-- store.verification._compare (4), as above

PRAGMA busy_timeout = 300000;

BEGIN IMMEDIATE;

-- store.recount.denominators, as above

-- store.recount.completions (4), as above

-- store.recount.totals, as above

-- store.recount._complete, as above

-- store.journal.write_selected, as above

-- store.recount._complete (2), as above

COMMIT;

PRAGMA busy_timeout = 300000;

BEGIN IMMEDIATE;

-- statements.lock_modules, as above

-- store.recount.tallies (2), as above

COMMIT;

COMMIT;

PRAGMA busy_timeout = 300000;

BEGIN IMMEDIATE;

-- store.verification.note, as above

-- store.verification.note (2), as above

COMMIT;


-- flask progress purge
-- ====================

PRAGMA busy_timeout = 300000;

BEGIN IMMEDIATE;

-- store.housekeeping._delete: Delete the oldest rows of a table up to a time, but none that others hold, and return
-- how many were deleted.
WITH expired AS (
  SELECT
    stored_answers.caller_id AS caller_id,
    stored_answers."key" AS "key"
  FROM stored_answers
  WHERE
    stored_answers.stored_at <= ?
  ORDER BY
    stored_answers.stored_at
  LIMIT ?
  OFFSET ?
)
DELETE FROM stored_answers
WHERE
  (stored_answers.caller_id, stored_answers."key") IN (
    SELECT
      expired.caller_id,
      expired."key"
    FROM expired
  )
RETURNING stored_at;

-- store.housekeeping._delete (2): Delete the oldest rows of a table up to a time, but none that others hold, and
-- return how many were deleted.
WITH expired AS (
  SELECT
    sessions.user_id AS user_id,
    sessions.content_id AS content_id,
    sessions.session AS session
  FROM sessions
  WHERE
    sessions.received_at <= ?
  ORDER BY
    sessions.received_at
  LIMIT ?
  OFFSET ?
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
RETURNING received_at;

-- store.housekeeping._delete (3): Delete the oldest rows of a table up to a time, but none that others hold, and
-- return how many were deleted.
WITH expired AS (
  SELECT
    changes.id AS id
  FROM changes
  WHERE
    changes.recorded_at <= ? AND NOT is_history
  ORDER BY
    changes.recorded_at
  LIMIT ?
  OFFSET ?
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
RETURNING recorded_at;

COMMIT;
