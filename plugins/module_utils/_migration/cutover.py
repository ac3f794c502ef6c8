# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""One run of module ``cutover``: gates, preparation, section, and the finish, or what an earlier run left of them."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import json
import pathlib
import time
import typing as t

from .._core.errors import ClientError, GateError, PgHaError, UnknownState, UsageError
from .._core.outcome import Outcome
from .._postgresql import client
from .._postgresql.locks import read_holder, take_lock
from . import ddl_guard, decision, gates, guards, journal, left_gone, schema, section, settle
from .bring import Bring
from .large_object_fence import LargeObjectFence

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


# How long clients are let alone after the flip, while their pools fill, before the slow rest takes processor time beside them.
SETTLE_SECONDS = 1.0


def connect(params: dict[str, t.Any], side: str) -> Connection:
    """A session of the mover on one side, every commit of it synchronous."""
    return client.connect(
        params["service_file"],
        side,
        application_name="ha_migration cutover",
        connect_timeout_seconds=params["connect_timeout_seconds"],
        settings={"synchronous_commit": "on", "statement_timeout": str(round(params["budget_seconds"] * 1000))},
        patience_seconds=0,
    )


def read_passwords(path: str | None) -> dict[str, str]:
    """Those of application roles by name; {} where there is no file.

    :raises UsageError: it cannot be read
    """
    if path is None:
        return {}
    try:
        return dict(json.loads(pathlib.Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UsageError(f"application_passwords_file {path} cannot be read: {type(error).__name__}.") from error


@dataclasses.dataclass(frozen=True)
class Comparers:
    """What the module hands in.

    :param schemas: compares the schemas of the sessions by side
    :param roles: what is missing on the target of the source's roles, in words: ``roles(source, target, applications' (quoted), further ones)``
    """

    schemas: t.Callable[[dict[str, Connection]], gates.Schemas]
    roles: t.Callable[[Connection, Connection, t.Collection[str], t.Collection[str]], list[str]]


class Cutover:
    """One run of the module: sessions, and the steps before, inside and after the section."""

    def __init__(self, params: dict[str, t.Any], comparers: Comparers, bring: Bring) -> None:
        self.params = params
        self.bring = bring
        self.comparers = comparers
        self.serves = params["serves"]
        self.leaves = decision.other(self.serves)
        self.here, self.ahead = (self._open(side) for side in (self.leaves, self.serves))
        # The source is one server: what it has promised it keeps.
        self.sync_sides = ("target",) if params["needs_sync_standby"] else ()
        self.steps = section.Steps()
        self.actions: list[str] = []

    def _open(self, side: str) -> Connection:
        """A session that holds the lock; nobody waits for us yet."""
        return client.connect(
            self.params["service_file"],
            side,
            application_name="ha_migration cutover gates",
            settings={"synchronous_commit": "on"},
        )

    def serving(self) -> str:
        """The side that serves, by what both sides know."""
        return decision.plan_serving(decision.read_history(self.here, self.leaves), decision.read_history(self.ahead, self.serves))

    def endpoint(self, side: str) -> tuple[str, int]:
        """(host, port) that poolers show for a side."""
        endpoint = self.params[f"{side}_endpoint"]
        return endpoint["host"], endpoint["port"]

    def console(self, name: str) -> Connection:
        """The console of one pooler."""
        return client.connect_console(self.params["service_file"], f"pooler_{name}")

    def consoles(self) -> dict[str, Connection]:
        """A console per pooler."""
        return {name: self.console(name) for name in self.params["poolers"]}

    def roles(self) -> tuple[str, ...]:
        """Application roles, quoted."""
        return settle.application_roles(self.here, self.ahead, self.params["application_roles"], self.params["own_roles"])

    def failed_gates(self) -> list[dict[str, str]]:
        """All gates that do not hold."""
        roles = self.roles()
        compare_roles = functools.partial(self.comparers.roles, self.here, self.ahead, roles, self.params["own_roles"])
        return gates.evaluate(
            gates.Context(
                here=self.here,
                ahead=self.ahead,
                poolers=tuple(self.params["poolers"]),
                open_console=self.console,
                leaves=self.leaves,
                serves=self.serves,
                database=self.params["database"],
                roles=roles,
                endpoint_now=self.endpoint(self.leaves),
                parity=with_age(self.params["parity"]),
                parity_max_age_seconds=self.params["parity_max_age_seconds"],
                long_transaction_seconds=self.params["long_transaction_seconds"],
                sync_sides=self.sync_sides,
                # Two gates ask, and it reads every object of both sides.
                compare_schema=functools.lru_cache(maxsize=None)(lambda: self.comparers.schemas({self.leaves: self.here, self.serves: self.ahead})),
                window_seconds=self.bring.window_seconds,
                compare_roles=compare_roles if self.leaves == "source" else None,
                roles_declared=bool(self.params["application_roles"]),
                check_copy=self.bring.check,
                passwords=read_passwords(self.params["application_passwords_file"]),
                is_password_of=functools.partial(client.is_password_of, self.params["service_file"]),
            ),
            self.bring.gates,
        )

    def attempt(self, epoch: int) -> section.Attempt:
        """What one attempt is about."""
        return section.Attempt(
            epoch=epoch,
            run=self.params["run"],
            leaves=self.leaves,
            serves=self.serves,
            database=self.params["database"],
            budget_seconds=self.params["budget_seconds"],
            roles=self.roles(),
            needs_sync_standby=self.serves in self.sync_sides,
            endpoint=self.endpoint(self.serves),
            pause_seconds=self.params["pause_seconds"],
            window_seconds=self.bring.window_seconds,
        )

    def open_sessions(self) -> section.Sessions:
        """Everything slow about connecting happens before clients are held."""
        here = connect(self.params, self.leaves)
        return section.Sessions(
            fence=connect(self.params, self.leaves),
            control=here,
            canceller=connect(self.params, self.leaves),
            large_objects=LargeObjectFence(connect(self.params, self.leaves)),
            ahead=connect(self.params, self.serves),
            pausers=self.consoles(),
            lookers=self.consoles(),
        )

    def prepare(self, epoch: int) -> None:
        """Guards of this epoch, and what the method has to do ahead: clients do not notice."""
        for side in (self.here, self.ahead):
            schema.ensure_schema(side)
        guards.install_guards(self.ahead, schema.GuardAwaiting(epoch, self.serves))
        guards.install_guards(self.here, schema.GuardPermissive())
        # What an earlier cutover has taken from them on that side; its guard refuses until the decision.
        settle.set_login(self.ahead, self.roles(), may=True)
        self.bring.prepare(self.here, self.ahead)

    def keep_out(self) -> None:
        """After an attempt that was undone: a side that clients have left before stays closed to their logins, whatever was opened for the attempt."""
        if decision.has_left(self.ahead, self.serves):
            settle.set_login(self.ahead, self.roles(), may=False)

    def make_ready(self, epoch: int, tables: list[dict[str, t.Any]], ddl: int | None) -> tuple[section.Attempt, section.Watch, section.Sessions]:
        """Everything before clients are held.

        :raises PgHaError: a step failed; what was laid for the way back is gone again, where it would hold back WAL
        """
        try:
            self.prepare(epoch)
            attempt, watch, sessions = self.attempt(epoch), self.watch(tables, ddl), self.open_sessions()
            self.steps.run("warm", lambda: section.warm(sessions, attempt, watch))
        except PgHaError:
            with contextlib.suppress(PgHaError):
                self.keep_out()
                self.bring.way_back.undo(self.here, self.ahead)
            raise
        return attempt, watch, sessions

    def watch(self, tables: list[dict[str, t.Any]], ddl: int | None) -> section.Watch:
        """What the section holds on to.

        :param tables: those of the side that is left, from before the gates looked at them
        :param ddl: how many commands that side had recorded then
        """
        return section.Watch(
            tables=tuple((row["oid"], row["name"]) for row in tables),
            undiverted=tuple(row["name"] for row in tables if not row["diverted"]),
            timeline=section.read_durability(self.ahead)["timeline"],
            large_objects=self.bring.large_objects(self.here, self.ahead),
            ddl=ddl,
        )

    def cut_over(self) -> None:
        """A new attempt, from its preparation to served clients.

        :raises GateError: gates do not hold, nothing was changed
        :raises section.Undone: the section was undone
        """
        # Before the gates look at them: what comes later they have not seen.
        tables, ddl = guards.read_guarded_tables(self.here), ddl_guard.count_recorded(self.here)
        failed = self.failed_gates()
        if failed:
            raise GateError(describe(failed), gates=failed)
        epoch = max(decision.next_epoch(self.here), decision.next_epoch(self.ahead))
        attempt, watch, sessions = self.make_ready(epoch, tables, ddl)
        self.actions.append(f"epoch {epoch}: the {self.leaves} is left for the {self.serves}")
        try:
            section.run_section(attempt, sessions, watch, self.steps, lambda: connect(self.params, self.leaves), self.bring.carry)
        except section.Undone as undone:
            with contextlib.suppress(PgHaError):
                self.keep_out()
                # What stays is taken away by the next attempt.
                self.bring.undo(self.here, self.ahead)
            try:
                self.await_undone(epoch)
            except GateError as late:
                raise section.Undone(f"{undone.message} {late.message}", **undone.details) from late
            decision.close_epoch(self.here, epoch, {"epoch": epoch, "outcome": "undone", "reason": undone.details["reason"], "steps": self.steps.done})
            raise
        self.forward(attempt, sessions)

    def forward(self, attempt: section.Attempt, sessions: section.Sessions) -> None:
        """After the decision: clients are served, and what was measured is kept before anything slow follows.

        :raises UnknownState: something of it failed; that it is decided is said too, for the failure alone reads as if nothing had come to pass
        """
        try:
            self._forward(attempt, sessions)
        except PgHaError as error:
            told = (
                "" if error.message.startswith("Decided for") else f"Decided for the {self.serves}, and the dead men bring every pooler there; then it failed: "
            )
            raise UnknownState(f"{told}{error.message} Run the same playbook again: it finishes the rest.", **error.details) from error

    def _forward(self, attempt: section.Attempt, sessions: section.Sessions) -> None:
        section.wait_until_served(attempt, sessions, self.steps, self.params["budget_seconds"], self.bring.patience_seconds)
        evidence = {"epoch": attempt.epoch, "outcome": "done", "serves": self.serves, "steps": self.steps.done}
        if self.steps.paused_at is not None:
            evidence["paused_at"] = self.steps.paused_wall
            evidence["critical_section_ms"] = settle.elapsed_ms(self.steps.paused_at)
        evidence.update(self.bring.evidence())
        decision.note_evidence(self.here, attempt.epoch, evidence)
        time.sleep(SETTLE_SECONDS)
        self.finish(attempt)

    def finish(self, attempt: section.Attempt) -> None:
        """The slow, idempotent rest: sessions, link, proof, guard; then the epoch is closed.

        :raises GateError: tables came to the side that was left after the decision
        """
        ended = settle.end_sessions(self.here, attempt.roles)
        late = [table["name"] for table in guards.read_guarded_tables(self.here) if not table["guarded"]]
        self.bring.retire(self.ahead, self.here, self.serves)
        self.bring.way_back.attach(self.here, self.ahead, attempt.epoch)
        if late:
            # They are closed from here on, so that it is told once and the next run goes on.
            guards.install_guards(self.here, None)
            raise GateError(
                f"Sessions past the poolers made tables on the {self.leaves} after the decision: {', '.join(late)}. They take no writes any more, and the "
                f"{self.serves} does not have them: look who made them, and bring there what is needed of them."
            )
        refused = settle.prove_refusal(self.here, attempt.roles)
        settle.open_guard(self.ahead)
        last = decision.read_last_epoch(self.here)
        kept = (last["evidence"] if last else None) or {"epoch": attempt.epoch, "outcome": "done", "serves": self.serves, "steps": self.steps.done}
        evidence = {**kept, **self.bring.way_back.evidence(), "sessions_ended": ended, "refused_writes": refused}
        client.query(self.here, f"UPDATE {schema.SCHEMA}.epoch SET evidence = %s WHERE epoch = %s", (json.dumps(evidence), attempt.epoch))
        decision.close_epoch(self.here, attempt.epoch, evidence)
        self.actions.append(f"epoch {attempt.epoch}: the {self.serves} serves")

    def tidy(self, predicted: bool) -> list[str]:
        """The slot of the link that has ended, where its publisher has it again: a standby that has not dropped its copy yet and becomes the leader keeps it.

        :param predicted: change nothing
        :returns: what was done, or would be
        """
        name = schema.link_towards(self.serves)
        if not client.query(self.here, "SELECT FROM pg_replication_slots WHERE slot_name = %s AND database = current_database()", (name,)):
            return []
        if not predicted:
            settle.retire_link(self.ahead, self.here, name)
        return [f"slot {name} on the {self.leaves}: dropped"]

    def resume(self, open_epoch: dict[str, t.Any]) -> str:
        """An attempt that an earlier run left open: compete for it, then finish or undo what was decided; returns the side that serves.

        :raises UnknownState: both sides were decided for
        """
        epoch = open_epoch["epoch"]
        control = connect(self.params, self.leaves)
        decided = section.decide_again(self.attempt(epoch), control, self.ahead, self.params["run"])
        if decided == self.leaves and decision.is_announced(self.ahead, epoch, self.serves):
            raise UnknownState(
                f"Epoch {epoch} was announced on the {self.serves}, and the {self.leaves}, which forgot it in a failover, was decided for: both may have "
                "taken writes. Stop the applications and compare both sides by hand; nothing was changed."
            )
        self.actions.append(f"epoch {epoch}, left open by {open_epoch['run']}: decided for the {decided}")
        if decided == self.serves:
            self.forward(self.attempt(epoch), self.open_sessions())
        else:
            self.await_undone(epoch)
            self.keep_out()
            self.bring.undo(self.here, self.ahead)
            decision.close_epoch(control, epoch, {"epoch": epoch, "outcome": "undone", "reason": "an earlier run left it open", "steps": []})
        return decided

    def await_undone(self, epoch: int) -> None:
        """Every pooler lets clients go on at the side that was not left after all. While the epoch is open, a dead man that starts knows of them.

        :raises GateError: one still holds them at the end of the budget, or cannot be seen and its dead man has not said that it does not
        """
        attempt = self.attempt(epoch)
        back = dataclasses.replace(attempt, serves=self.leaves, leaves=self.serves, endpoint=self.endpoint(self.leaves))
        bound = time.monotonic() + self.params["budget_seconds"]
        while late := [name for name in self._unserved(epoch) if not self._goes_on(name, back)]:
            if time.monotonic() > bound:
                raise GateError(f"{', '.join(late)} still holds its clients although the attempt was undone: look at pg-ha-dead-man there.")
            time.sleep(0.01)

    def _unserved(self, epoch: int) -> list[str]:
        """Poolers whose dead man has not said that clients go on."""
        return sorted(set(self.params["poolers"]) - decision.read_acknowledged(self.here, epoch, "served"))

    def _goes_on(self, name: str, back: section.Attempt) -> bool:
        """Whether a pooler shows that it serves; one that does not answer shows nothing."""
        try:
            with contextlib.closing(self.console(name)) as console:
                return section.is_served(console, back)
        except ClientError:
            return False


def _lock_out_others(work: Cutover) -> None:
    """Keep copies, comparisons and other cutovers away for as long as these sessions live: a table that is copied again is emptied on the next side.

    :raises GateError: one of them runs
    """
    source = work.here if work.leaves == "source" else work.ahead
    copies = (schema.LOCK_CLASS, schema.LOCK_COPY)
    # In the order of the comparison, and shared as it does: a copy alone has it exclusively.
    if not take_lock(source, copies, shared=True):
        holder = read_holder(source, copies)
        session = f"session {holder['pid']} of {holder['who']} on the source, since {holder['since']}" if holder else "it has just ended"
        raise GateError(f"A copy of this migration's rows runs just now ({session}): wait for its end, then run the same playbook again.")
    for side in (work.here, work.ahead):
        if not take_lock(side, (schema.LOCK_CLASS, schema.LOCK_CUTOVER)):
            raise GateError(schema.CUTOVER_RUNS, busy=True)


def _record_begin(target: Connection, params: dict[str, t.Any]) -> None:
    """Have the journal say that the phase has begun. Only who holds the lock may: of two controllers' runs it names the one that is at it."""
    named = params["journal"]
    if named is None:
        return
    before = journal.read_phase(target, named["migration"], named["phase"])
    after, actions = journal.plan_phase(before, journal.Wanted("running", named["inputs"], params["run"]))
    if actions:
        journal.write_phase(target, before, after)


def _attempt(last: dict[str, t.Any] | None) -> dict[str, t.Any]:
    """Who ran the attempt that led to the serving side, and what was measured of it; an earlier run of the playbook may have been interrupted in it."""
    return {"run": last["run"] if last else None, "evidence": last["evidence"] if last else None}


def with_age(evidence: dict[str, t.Any] | None) -> dict[str, t.Any] | None:
    """Evidence of the comparison with ``age_seconds``."""
    if evidence is None:
        return None
    finished = datetime.datetime.fromisoformat(evidence["finished_at"])
    return {**evidence, "age_seconds": (datetime.datetime.now(datetime.UTC) - finished).total_seconds()}


def describe(failed: list[dict[str, str]]) -> str:
    """A line for each failed gate."""
    lines = [f"{gate['gate']}: {gate['object'] + ': ' if gate['object'] else ''}{gate['message']}; {gate['remedy']}." for gate in failed]
    return "\n".join([f"The cutover was not started, {len(lines)} gate(s) do not hold:", *(f"- {line}" for line in lines)])


def unfinished_attempt(opened: dict[str, t.Any], serves: str) -> dict[str, str]:
    """The one gate that counts while an attempt is open: until somebody has finished it nobody knows what the others would be asked of."""
    what = f"epoch {opened['epoch']} of run {opened['run']}"
    playbook = {"target": "cut_over.yml", "source": "roll_back.yml"}[serves]
    remedy = f"run playbooks/{playbook} with consent: it finishes what was decided, or undoes it, before anything else"
    return {"gate": "unfinished", "object": what, "message": "an earlier run has left its attempt open", "remedy": remedy}


def cut_over(params: dict[str, t.Any], check_mode: bool, comparers: Comparers, bring: Bring) -> Outcome:
    """Bring the migration to where ``serves`` serves; see the module's documentation.

    :param bring: how the rows come over, and how they go back
    :raises GateError: gates do not hold, a copy or another cutover runs, or one in the other direction is not finished; nothing was changed
    :raises section.Undone: the section was undone, clients go on where they were
    :raises UnknownState: it could not be read how far a step came; a re-run finds out
    """
    if params["source_gone"]:
        return left_gone.finish(params, check_mode, bring.evidence, lambda name: client.connect_console(params["service_file"], f"pooler_{name}"))
    work = Cutover(params, comparers, bring)
    failed = gates.strange({work.leaves: work.here, work.serves: work.ahead})
    if failed and (check_mode or params["only_gates"]):
        return Outcome(False, {"serves": work.serving(), "failed_gates": failed, "actions": [], **_attempt(None)})
    if failed:
        raise GateError(describe(failed), gates=failed)
    _lock_out_others(work)
    if not check_mode and not params["only_gates"]:
        _record_begin(work.ahead if work.serves == "target" else work.here, params)
    unfinished = decision.read_open_epoch(work.ahead)
    if unfinished is not None:
        playbook = {"source": "cut_over.yml", "target": "roll_back.yml"}[unfinished["leaves"]]
        raise GateError(f"Epoch {unfinished['epoch']}, which leaves the {unfinished['leaves']}, was not finished: run playbook {playbook} again first.")
    opened, before = decision.read_open_epoch(work.here), work.serving()
    if opened is None and before == work.serves:
        predicted = check_mode or params["only_gates"]
        actions = work.tidy(predicted)
        last = decision.read_last_epoch(work.here)
        return Outcome(bool(actions) and not params["only_gates"], {"serves": before, "failed_gates": [], "actions": actions, **_attempt(last)})
    if check_mode or params["only_gates"]:
        failed = work.failed_gates() if opened is None else [unfinished_attempt(opened, work.serves)]
        return Outcome(
            changed=check_mode and not failed,
            result={"serves": before, "failed_gates": failed, "actions": [], **_attempt(None)},
            before={"serves": before},
            after={"serves": before if failed else params["serves"]},
        )
    if opened is None or work.resume(opened) != work.serves:
        work.cut_over()
    last = decision.read_last_epoch(work.here)
    return Outcome(
        changed=True,
        result={"serves": work.serves, "failed_gates": failed, "actions": work.actions, **_attempt(last)},
        before={"serves": before},
        after={"serves": work.serves},
    )
