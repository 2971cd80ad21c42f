"""Allowances: what was used of each limit, by whom it is held, and the functions that alone move either.

The functions are the one place where limits are enforced between processes. Each locks the rows of its allowances in
the order of their accounts, byte by byte, so that no two wait for each other.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

CONCURRENCY, MONEY = 2, 3  # of policy.allowances.Kind
CHANNEL = "passthrough_allowances"

# One answer for each of `wants`, an array of objects in the order of their accounts. `number` and `epoch` say which
# lease `taken` and `settled` are of: a lease that is no more has nothing to report, but what was reserved on it.
_LEASE = f"""
CREATE FUNCTION passthrough_lease(asker text, wants jsonb, alive interval) RETURNS TABLE (
    place int, state text, allowance bigint, number bigint, epoch bigint, granted numeric,
    used numeric, held numeric, lost numeric, ends_at double precision, moment double precision, others text[]
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    w record;
    a allowances%ROWTYPE;
    l allowance_leases%ROWTYPE;
    held_before numeric;
    spare numeric;
    given numeric;
    asked text[];
    instant timestamptz;
    next_start timestamptz;
    next_end timestamptz;
BEGIN
    FOR w IN SELECT * FROM jsonb_to_recordset(wants) AS given (
        place int, subject text, name text, kind smallint, period text, model text, most numeric, soft numeric,
        span double precision, starts double precision, ends double precision, number bigint, epoch bigint,
        taken numeric, settled numeric, back numeric, need numeric, total numeric, extra numeric,
        ask text, answer text, close boolean
    ) LOOP
        SELECT * INTO a FROM allowances t WHERE t.subject = w.subject AND t.name = w.name AND t.kind = w.kind
            AND t.period = w.period AND t.model = w.model FOR UPDATE;
        IF a.id IS NULL AND w.number <> 0 THEN
            -- a key that was rotated: whoever has not heard of it yet knows the lease
            SELECT t.* INTO a FROM allowances t JOIN allowance_leases ON allowance_leases.allowance = t.id
            WHERE allowance_leases.number = w.number FOR UPDATE OF t;
        END IF;
        instant := clock_timestamp();
        next_start := CASE WHEN w.span IS NULL THEN to_timestamp(w.starts) ELSE instant END;
        next_end := CASE WHEN w.span IS NULL THEN to_timestamp(w.ends)
                    ELSE instant + make_interval(secs => w.span) END;
        IF (a.id IS NULL OR a.ends_at <= instant) AND next_end <= instant THEN
            -- the asker's clock is behind: it has to work out the window anew
            RETURN QUERY SELECT w.place, 'late', a.id, NULL::bigint, NULL::bigint, 0::numeric, 0::numeric, 0::numeric,
                0::numeric, NULL::double precision, extract(epoch FROM instant)::double precision, NULL::text[];
            CONTINUE;
        END IF;
        IF a.ends_at <= instant AND w.kind = {MONEY}
            AND NOT EXISTS (SELECT FROM allowance_leases t WHERE t.allowance = a.id) THEN
            -- nobody had it for long: what was spent in this window without it has to be counted
            DELETE FROM allowances t WHERE t.id = a.id;
            a.id := NULL;
        END IF;
        IF a.id IS NULL THEN
            IF w.kind = {MONEY} THEN
                -- what was spent before there was a budget has to be counted first
                RETURN QUERY SELECT w.place, 'new', NULL::bigint, NULL::bigint, NULL::bigint, 0::numeric, 0::numeric,
                    0::numeric, 0::numeric, NULL::double precision,
                    extract(epoch FROM instant)::double precision, NULL::text[];
                CONTINUE;
            END IF;
            INSERT INTO allowances (subject, name, kind, period, model, starts_at, ends_at, most, soft)
            VALUES (w.subject, w.name, w.kind, w.period, w.model, next_start, next_end, w.most, w.soft)
            ON CONFLICT DO NOTHING;
            SELECT * INTO STRICT a FROM allowances t WHERE t.subject = w.subject AND t.name = w.name
                AND t.kind = w.kind AND t.period = w.period AND t.model = w.model FOR UPDATE;
        END IF;
        IF a.ends_at <= instant THEN
            DELETE FROM allowance_leases t WHERE t.allowance = a.id;
            a.starts_at := next_start;
            a.ends_at := next_end;
            a.epoch := a.epoch + 1;
            a.used := 0; a.held := 0; a.lost := 0; a.warned := 0;
        END IF;

        SELECT * INTO l FROM allowance_leases t WHERE t.allowance = a.id AND t.holder = asker;
        l.granted := coalesce(l.granted, 0);
        l.consumed := coalesce(l.consumed, 0);
        IF w.number <> 0 AND w.epoch <> a.epoch THEN
            w.taken := 0; w.settled := 0; w.back := 0;
        ELSIF w.number <> 0 AND w.number IS DISTINCT FROM l.number THEN
            w.taken := w.taken - w.settled; w.settled := 0; w.back := 0;
        END IF;
        held_before := greatest(0, l.granted - l.consumed);
        IF w.kind < {CONCURRENCY} AND w.settled > l.consumed THEN
            a.used := a.used + w.settled - l.consumed;
            l.consumed := w.settled;
        ELSIF w.kind = {MONEY} AND w.number = 0 AND w.settled > l.consumed THEN
            -- spent without a lease, so the ledger's rows do not say of what
            a.lost := a.lost + w.settled - l.consumed;
            l.consumed := w.settled;
        END IF;
        l.granted := greatest(l.granted - w.back, w.taken);
        a.held := a.held + greatest(0, l.granted - l.consumed) - held_before;

        IF w.total > 0 AND w.kind = {MONEY} AND w.period = '' AND w.model = '' THEN
            -- also what was spent while it did not bind: the ledger's counter moves with every call, and together
            a.used := greatest(a.used, (SELECT t.spend * 1e12 FROM spend t
                WHERE t.kind = a.subject AND t.subject = a.name));
        END IF;
        spare := w.most - a.used - a.held - a.lost;
        given := CASE
            WHEN w.total <= 0 THEN 0
            WHEN spare >= w.total THEN w.total + trunc(least(w.extra, (spare - w.total) / 8))
            WHEN spare >= w.need THEN greatest(0, trunc(spare))
            ELSE 0 END;
        l.granted := l.granted + given;
        a.held := a.held + given;
        asked := NULL;
        IF spare < w.total AND w.ask <> '' THEN
            SELECT array_agg(t.holder) INTO asked FROM allowance_leases t JOIN allowance_holders h USING (holder)
            WHERE t.allowance = a.id AND t.holder <> asker AND t.granted > t.consumed AND h.seen_at > instant - alive;
            IF asked IS NOT NULL THEN
                PERFORM pg_notify('{CHANNEL}', concat_ws(' ', 'ask', a.id, w.ask, asker));
            END IF;
        END IF;
        IF w.answer <> '' THEN
            PERFORM pg_notify('{CHANNEL}', concat_ws(' ', 'have', a.id, w.answer, asker, w.back));
        END IF;

        IF w.close AND l.granted <= l.consumed THEN
            DELETE FROM allowance_leases t WHERE t.number = l.number;
            l.number := NULL;
        ELSIF l.number IS NOT NULL THEN
            UPDATE allowance_leases t SET granted = l.granted, consumed = l.consumed, free = l.granted - w.taken
            WHERE t.number = l.number;
        ELSE
            INSERT INTO allowance_leases AS t (allowance, holder, granted, consumed, free)
            VALUES (a.id, asker, l.granted, l.consumed, l.granted - w.taken) RETURNING t.number INTO l.number;
        END IF;
        IF w.most > a.most OR w.soft > a.soft THEN
            -- a raised limit has its own thresholds; of those that are crossed as before nobody is told again
            a.warned := a.warned & (coalesce(a.used >= w.soft, false)::int + 2 * (a.used >= w.most * 0.75)::int
                + 4 * (a.used >= w.most * 0.9)::int + 8 * (a.used >= w.most)::int)::smallint;
        END IF;
        UPDATE allowances t SET epoch = a.epoch, starts_at = a.starts_at, ends_at = a.ends_at, used = a.used,
            held = a.held, lost = a.lost, most = w.most, soft = w.soft, warned = a.warned WHERE t.id = a.id;
        RETURN QUERY SELECT w.place, 'ok', a.id, l.number, a.epoch, l.granted, a.used, a.held, a.lost,
            extract(epoch FROM a.ends_at)::double precision, extract(epoch FROM instant)::double precision, asked;
    END LOOP;
END $$
"""  # noqa: S608  # our own names, nobody's input

# What the ledger has just stored, of money. Of a window that is over, nothing is moved: nobody asks any more.
_SETTLE = """
CREATE FUNCTION passthrough_settle(
    ids bigint[], numbers bigint[], epochs bigint[], units numeric[], costs numeric[], losses numeric[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM allowances WHERE id = ANY (ids)
    ORDER BY subject COLLATE "C", name COLLATE "C", kind, period COLLATE "C", model COLLATE "C" FOR UPDATE;
    WITH charge AS MATERIALIZED (
        SELECT * FROM unnest(ids, numbers, epochs, units, costs, losses)
            AS given (allowance, number, epoch, units, cost, loss)
    ), moved AS (
        UPDATE allowance_leases lease SET consumed = lease.consumed + charge.units
        FROM charge WHERE lease.number = charge.number
        RETURNING lease.allowance, greatest(0, lease.granted - lease.consumed + charge.units)
            - greatest(0, lease.granted - lease.consumed) AS freed
    ), freed AS (
        SELECT allowance, sum(freed) AS freed FROM moved GROUP BY allowance
    ), sums AS (
        SELECT charge.allowance, charge.epoch, sum(cost) AS cost, sum(loss) AS loss
        FROM charge GROUP BY charge.allowance, charge.epoch
    )
    UPDATE allowances held SET used = held.used + sums.cost, lost = held.lost + sums.loss,
        held = held.held - coalesce(freed.freed, 0)
    FROM sums LEFT JOIN freed ON freed.allowance = sums.allowance
    WHERE held.id = sums.allowance AND held.epoch = sums.epoch;
END $$
"""

# The leases of a worker that has died. `noted` is what it had written down as not to be given back: `value` by
# lease number. Money is left alone until all of its calls are in the ledger (`with_money`). Returns how many leases
# are left.
_BURY = f"""
CREATE FUNCTION passthrough_bury(dead text, noted jsonb, with_money boolean) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    r record;
    outstanding numeric;
    kept numeric;
BEGIN
    PERFORM 1 FROM allowances WHERE id IN (SELECT allowance FROM allowance_leases WHERE holder = dead)
    ORDER BY subject COLLATE "C", name COLLATE "C", kind, period COLLATE "C", model COLLATE "C" FOR UPDATE;
    FOR r IN SELECT lease.number, lease.granted, lease.consumed, held.id, held.kind,
            coalesce((noted ->> lease.number::text)::numeric, 0) AS value
        FROM allowance_leases lease JOIN allowances held ON held.id = lease.allowance
        WHERE lease.holder = dead AND (with_money OR held.kind <> {MONEY})
    LOOP
        outstanding := greatest(0, r.granted - r.consumed);
        kept := CASE
            WHEN r.kind = {MONEY} THEN least(r.value, outstanding)
            WHEN r.kind = {CONCURRENCY} THEN 0
            ELSE greatest(0, r.value - r.consumed) END;
        UPDATE allowances SET held = held - outstanding,
            used = used + CASE WHEN r.kind = {MONEY} THEN 0 ELSE kept END,
            lost = lost + CASE WHEN r.kind = {MONEY} THEN kept ELSE 0 END
        WHERE id = r.id;
        DELETE FROM allowance_leases WHERE number = r.number;
    END LOOP;
    DELETE FROM allowance_holders
    WHERE holder = dead AND NOT EXISTS (SELECT FROM allowance_leases WHERE holder = dead);
    RETURN (SELECT count(*) FROM allowance_leases WHERE holder = dead);
END $$
"""  # noqa: S608  # our own names, nobody's input

# Calls at one time of workers that nobody has heard of for `silent`: the calls are over, or nobody can tell.
_EXPIRE = f"""
CREATE FUNCTION passthrough_expire(silent interval) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    r record;
    ended bigint := 0;
BEGIN
    PERFORM 1 FROM allowances WHERE kind = {CONCURRENCY} AND id IN (
        SELECT lease.allowance FROM allowance_leases lease JOIN allowance_holders USING (holder)
        WHERE seen_at < clock_timestamp() - silent)
    ORDER BY subject COLLATE "C", name COLLATE "C", model COLLATE "C" FOR UPDATE;
    FOR r IN SELECT lease.number, greatest(0, lease.granted - lease.consumed) AS outstanding, held.id
        FROM allowance_leases lease JOIN allowances held ON held.id = lease.allowance
        JOIN allowance_holders holder ON holder.holder = lease.holder
        WHERE held.kind = {CONCURRENCY} AND holder.seen_at < clock_timestamp() - silent
    LOOP
        UPDATE allowances SET held = held - r.outstanding WHERE id = r.id;
        DELETE FROM allowance_leases WHERE number = r.number;
        ended := ended + 1;
    END LOOP;
    RETURN ended;
END $$
"""  # noqa: S608  # our own names, nobody's input

# Bits of `warned`: 1 soft, 2 three quarters, 4 nine tenths, 8 all of it.
_WARN = f"""
CREATE FUNCTION passthrough_warn() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    step record;
BEGIN
    FOR step IN SELECT * FROM (VALUES (1, 'soft', NEW.soft), (2, '75', NEW.most * 0.75), (4, '90', NEW.most * 0.9),
        (8, '100', NEW.most)) AS steps (mark, threshold, amount)
    LOOP
        IF NEW.used >= step.amount AND NEW.warned & step.mark = 0 AND NOT (step.mark > 1 AND NEW.soft = NEW.most) THEN
            NEW.warned := NEW.warned | step.mark;
            INSERT INTO allowance_events (subject, name, kind, period, model, threshold, used, most, ends_at)
            VALUES (NEW.subject, NEW.name, NEW.kind, NEW.period, NEW.model, step.threshold, NEW.used, NEW.most,
                NEW.ends_at);
            PERFORM pg_notify('{CHANNEL}', 'event');
        END IF;
    END LOOP;
    RETURN NEW;
END $$
"""  # noqa: S608  # our own names, nobody's input
_WARN_TRIGGER = f"""
CREATE TRIGGER warn BEFORE UPDATE ON allowances FOR EACH ROW
WHEN (NEW.used > OLD.used AND NEW.warned <> 15 AND (NEW.kind = {MONEY} OR NEW.period = '1d')
    AND NEW.used >= least(NEW.soft, NEW.most * 0.75))
EXECUTE FUNCTION passthrough_warn()
"""

# A key that is rotated takes its counts along; who is deleted leaves none.
_FOLLOW = """
CREATE FUNCTION passthrough_allowances_follow() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    former text := to_jsonb(OLD) ->> TG_ARGV[1];
BEGIN
    IF TG_ARGV[0] = 'team_member' THEN
        former := concat(to_jsonb(OLD) ->> 'team_id', '/', to_jsonb(OLD) ->> 'user_id');
    END IF;
    PERFORM 1 FROM allowances WHERE subject = TG_ARGV[0] AND name = former
    ORDER BY kind, period COLLATE "C", model COLLATE "C" FOR UPDATE;
    IF TG_OP = 'DELETE' THEN
        DELETE FROM allowances WHERE subject = TG_ARGV[0] AND name = former;
    ELSE
        UPDATE allowances SET name = to_jsonb(NEW) ->> TG_ARGV[1] WHERE subject = TG_ARGV[0] AND name = former;
    END IF;
    RETURN NULL;
END $$
"""
_OWNERS = (
    ("users", "user", "user_id"),
    ("teams", "team", "team_id"),
    ("team_members", "team_member", ""),
    ("customers", "customer", "user_id"),
)
_FUNCTIONS = (_LEASE, _SETTLE, _BURY, _EXPIRE, _WARN, _FOLLOW)


_LIMITED_CUSTOMER = (
    "num_nonnulls(budget_id, max_budget, soft_budget, rpm_limit, tpm_limit, tpd_limit, max_parallel_requests) > 0 "
    "OR model_max_budget <> '{}'"
)


def upgrade() -> None:
    _tables()
    op.create_index("ix_customers_limited", "customers", ["user_id"], postgresql_where=sa.text(_LIMITED_CUSTOMER))
    for function in (*_FUNCTIONS, _WARN_TRIGGER):
        op.execute(function)
    op.execute(
        "CREATE TRIGGER allowances_follow AFTER DELETE OR UPDATE OF key_id ON keys FOR EACH ROW "
        "EXECUTE FUNCTION passthrough_allowances_follow('key', 'key_id')"
    )
    for table, subject, column in _OWNERS:
        op.execute(
            f"CREATE TRIGGER allowances_follow AFTER DELETE ON {table} FOR EACH ROW "
            f"EXECUTE FUNCTION passthrough_allowances_follow('{subject}', '{column}')"
        )


def downgrade() -> None:
    op.drop_index("ix_customers_limited", "customers")
    for table in ("keys", *(table for table, _, _ in _OWNERS)):
        op.execute(f"DROP TRIGGER allowances_follow ON {table}")
    for table in ("allowance_events", "allowance_leases", "allowance_holders", "allowances"):
        op.drop_table(table)
    for function in ("lease", "settle", "bury", "expire", "warn", "allowances_follow"):
        op.execute(f"DROP FUNCTION passthrough_{function}")


def _text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, nullable=False)


def _time(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), **options)


def _now(name: str) -> sa.Column[Any]:
    return _time(name, nullable=False, server_default=sa.func.now())


def _amount(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Numeric, nullable=False, server_default=sa.text("0"))


def _tables() -> None:
    account = ("subject", "name", "kind", "period", "model")
    op.create_table(
        "allowances",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        _text("subject"),
        _text("name"),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        _text("period"),
        _text("model"),
        sa.Column("epoch", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        _time("starts_at", nullable=False),
        _time("ends_at"),
        _now("created_at"),
        *(_amount(name) for name in ("used", "held", "lost")),
        sa.Column("most", sa.Numeric, nullable=False),
        sa.Column("soft", sa.Numeric),
        sa.Column("warned", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        sa.PrimaryKeyConstraint("id", name="pk_allowances"),
        sa.UniqueConstraint(*account, name="uq_allowances_account"),
        comment="What was used of each allowance in its current window (number: epoch), by all workers together",
        postgresql_with={"fillfactor": 60},
    )
    op.create_index(
        "ix_allowances_created_at", "allowances", ["created_at"], postgresql_where=sa.text(f"kind = {MONEY}")
    )
    op.create_table(
        "allowance_holders",
        _text("holder"),
        _now("seen_at"),
        sa.PrimaryKeyConstraint("holder", name="pk_allowance_holders"),
        comment="Workers; the name is that of the journal which has the calls that they made",
    )
    _leases()
    _events()


def _leases() -> None:
    allowance = sa.ForeignKey("allowances.id", name="fk_allowance_leases_allowance", ondelete="CASCADE")
    holder = sa.ForeignKey("allowance_holders.holder", name="fk_allowance_leases_holder")
    op.create_table(
        "allowance_leases",
        sa.Column("number", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("allowance", sa.BigInteger, allowance, nullable=False),
        sa.Column("holder", sa.Text, holder, nullable=False),
        *(_amount(name) for name in ("granted", "consumed", "free")),
        sa.PrimaryKeyConstraint("number", name="pk_allowance_leases"),
        sa.UniqueConstraint("allowance", "holder", name="uq_allowance_leases_allowance_holder"),
        comment="granted: in all, less what was given back; consumed: known to be used (money: by the ledger); "
        "free: as of the last report",
        postgresql_with={"fillfactor": 60},
    )
    op.create_index("ix_allowance_leases_holder", "allowance_leases", ["holder"])


def _events() -> None:
    op.create_table(
        "allowance_events",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        _now("at"),
        _text("subject"),
        _text("name"),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        *(_text(name) for name in ("period", "model", "threshold")),
        *(sa.Column(name, sa.Numeric, nullable=False) for name in ("used", "most")),
        *(_time(name) for name in ("ends_at", "told_at")),
        _now("due_at"),
        sa.Column("tries", sa.Integer, nullable=False, server_default=sa.text("0")),
        _time("done_at"),
        sa.PrimaryKeyConstraint("id", name="pk_allowance_events"),
        comment="Thresholds that were crossed: logged once (told_at), and sent until a webhook took it (done_at)",
    )
    op.create_index(
        "ix_allowance_events_due_at", "allowance_events", ["due_at"], postgresql_where=sa.text("done_at IS NULL")
    )
