-- Stores one batch of appends: judges each, gives dense positions, writes them all, notifies once.
--
-- One call does everything, so that nothing but this statement ever holds the log's lock: a client
-- that hangs between two statements could hold it for ever. Arrays are parallel: `p_ids` to
-- `p_side_until` have one element per append, `p_check_*` one per stream that an append asserts
-- or extends (assertions first), `p_event_*` one per event, `p_side_*` one per side write. `…_until` is
-- the index of an append's last element. The caller keeps ids and idempotency keys distinct within
-- a batch.
--
-- Its plans are made while tables are small and kept while they grow: the writer's connection rules
-- sequential scans, hash and merge joins out for that reason (settings of the function itself would
-- cost an eighth of a small call).
--
-- status: stored, known (this id is stored already), replayed, key_reused, fenced, stale (item: the
-- check, actual: where the stream stands), side_conflict (detail: the constraint),
-- side_stale (item: the side write), invalid (detail: the reason).
create function proximity_append(
  p_ids            uuid[],
  p_actors         text[],
  p_keys           text[],
  p_fingerprints   text[],
  p_answers        text[],
  p_claims         text[],
  p_epochs         bigint[],
  p_metadata       text[],
  p_checks_until   int[],
  p_side_until     int[],
  p_stream_types   text[],
  p_stream_ids     text[],
  p_check_append   int[],
  p_check_stream   int[],
  p_check_expected bigint[], -- -1: wherever it stands
  p_check_events   int[],    -- 0: an assertion
  p_event_check    int[],
  p_event_offset   int[],
  p_event_types    text[],
  p_event_versions text[],
  p_event_payloads text[],
  p_side_sql       text[],
  p_side_row       jsonb[],
  p_side_expected  bigint[]  -- rows to be touched; -1: any number
) returns table (status text, first_position bigint, last_position bigint, item int, actual bigint, detail text)
language plpgsql
as $$
declare
  appends    constant int := cardinality(p_ids);
  now_micros bigint;
  head       bigint;
  start      bigint;
  heads      bigint[];
  statuses   text[]   := array_fill(null::text, array[appends]);
  firsts     bigint[] := array_fill(null::bigint, array[appends]);
  lasts      bigint[] := array_fill(null::bigint, array[appends]);
  items      int[]    := array_fill(null::int, array[appends]);
  actuals    bigint[] := array_fill(null::bigint, array[appends]);
  details    text[]   := array_fill(null::text, array[appends]);
  check_position bigint[] := array_fill(null::bigint, array[cardinality(p_check_append)]);
  check_sequence bigint[] := array_fill(null::bigint, array[cardinality(p_check_append)]);
  r      record;
  check_from int := 1;
  check_to   int;
  side_from  int := 1;
  side_to    int;
  s          int;
  touched    bigint;
  refused    boolean;
  reason     text;
begin
  -- Positions are given and become visible under this one lock, so a reader of `position > last`
  -- never misses an event that commits late. Every statement below sees what the last holder wrote.
  perform pg_advisory_xact_lock(5788045172043125);

  now_micros := (extract(epoch from clock_timestamp()) * 1000000)::bigint;
  head := coalesce((select max(e.position) from events e), 0);

  for r in
    select i.n, 'known' as status, a.first_position, a.last_position, null::text as answer
    from unnest(p_ids) with ordinality i(id, n)
    join appends a on a.append_id = i.id
    union all
    select i.n, case when a.fingerprint = i.fingerprint then 'replayed' else 'key_reused' end,
           a.first_position, a.last_position, a.answer
    from unnest(p_actors, p_keys, p_fingerprints) with ordinality i(actor, key, fingerprint, n)
    join appends a on a.actor = i.actor and a.idempotency_key = i.key
    where i.key is not null
  loop
    if statuses[r.n] is null then -- the id says more than the key
      statuses[r.n] := r.status;
      firsts[r.n] := r.first_position;
      lasts[r.n] := r.last_position;
      details[r.n] := r.answer;
    end if;
  end loop;

  -- The claims stay locked until commit: nobody can take one over while its holder's append lands.
  for r in
    select i.n
    from (
      select c.id, c.epoch from claims c
      where c.id = any (p_claims) order by c.id for share
    ) c
    right join unnest(p_claims, p_epochs) with ordinality i(claim, epoch, n) on c.id = i.claim
    where i.claim is not null and c.epoch is distinct from i.epoch
  loop
    if statuses[r.n] is null then
      statuses[r.n] := 'fenced';
    end if;
  end loop;

  select array_agg(coalesce(h.sequence, 0) order by i.n) into heads
  from unnest(p_stream_types, p_stream_ids) with ordinality i(type, id, n)
  left join lateral (
    select e.sequence from events e
    where e.aggregate_type = i.type and e.aggregate_id = i.id
    order by e.sequence desc limit 1
  ) h on true;

  start := head;
  for a in 1 .. appends loop
    check_to := p_checks_until[a];
    side_to := p_side_until[a];

    if statuses[a] is null then
      -- `heads` moves along, so that an append is judged against those before it in the batch.
      for c in check_from .. check_to loop
        s := p_check_stream[c];
        if p_check_expected[c] >= 0 and p_check_expected[c] <> heads[s] then
          statuses[a] := 'stale';
          items[a] := c;
          actuals[a] := heads[s];
          for undone in check_from .. c - 1 loop
            s := p_check_stream[undone];
            heads[s] := heads[s] - p_check_events[undone];
          end loop;
          exit;
        end if;
        check_sequence[c] := heads[s] + 1;
        heads[s] := heads[s] + p_check_events[c];
      end loop;

      if statuses[a] is null and side_from <= side_to then
        refused := true;
        begin
          for w in side_from .. side_to loop
            execute p_side_sql[w] using p_side_row[w];
            get diagnostics touched = row_count;
            if p_side_expected[w] >= 0 and p_side_expected[w] <> touched then
              items[a] := w;
              raise exception using errcode = 'PXS01'; -- takes back this append's side writes
            end if;
          end loop;
          refused := false;
        exception
          when sqlstate 'PXS01' then
            statuses[a] := 'side_stale';
          when unique_violation then
            get stacked diagnostics reason = constraint_name;
            details[a] := reason;
            statuses[a] := 'side_conflict';
          when integrity_constraint_violation or data_exception or syntax_error_or_access_rule_violation then
            get stacked diagnostics reason = message_text;
            details[a] := reason;
            statuses[a] := 'invalid';
        end;
        if refused then
          for undone in check_from .. check_to loop
            s := p_check_stream[undone];
            heads[s] := heads[s] - p_check_events[undone];
          end loop;
        end if;
      end if;

      if statuses[a] is null then
        statuses[a] := 'stored';
        firsts[a] := head + 1;
        for c in check_from .. check_to loop
          if p_check_events[c] > 0 then
            check_position[c] := head + 1;
            head := head + p_check_events[c];
          end if;
        end loop;
        lasts[a] := head;
        if lasts[a] < firsts[a] then -- an append of side rows only
          firsts[a] := head;
        end if;
      end if;
    end if;

    check_from := check_to + 1;
    side_from := side_to + 1;
  end loop;

  if head > start then
    insert into events (
      position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata, recorded_at
    )
    select check_position[e.c] + e.o, p_stream_types[p_check_stream[e.c]], p_stream_ids[p_check_stream[e.c]],
           check_sequence[e.c] + e.o, e.type, e.version, e.payload::json,
           p_metadata[p_check_append[e.c]]::json, now_micros
    from unnest(p_event_check, p_event_offset, p_event_types, p_event_versions, p_event_payloads)
      as e(c, o, type, version, payload)
    where check_position[e.c] is not null;
  end if;

  insert into appends (
    append_id, actor, idempotency_key, fingerprint, answer, first_position, last_position, recorded_at
  )
  select i.id, i.actor, i.key, i.fingerprint, i.answer, i.first_position, i.last_position, now_micros
  from unnest(p_ids, p_actors, p_keys, p_fingerprints, p_answers, statuses, firsts, lasts)
    as i(id, actor, key, fingerprint, answer, status, first_position, last_position)
  where i.status = 'stored';

  if head > start then
    perform pg_notify('proximity_head', head::text);
  end if;

  return query
  select i.status, i.first_position, i.last_position, i.item, i.actual, i.detail
  from unnest(statuses, firsts, lasts, items, actuals, details) with ordinality
    as i(status, first_position, last_position, item, actual, detail, n)
  order by i.n;
end
$$;
