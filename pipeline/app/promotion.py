"""Decide on versions and move the champion: by the gate, by a person, and back.

The gate's evidence is collected first, which may take minutes. Then the decision is recorded and
carried out while no other decision can be made, and only if the champion is still the one that was
compared.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.adapters.checkout.project import Project
from pipeline.adapters.report import html_page
from pipeline.adapters.storage import files, json_files
from pipeline.adapters.tracking import registry as tracking
from pipeline.adapters.tracking.registry import Registry
from pipeline.adapters.tracking.versions import Version
from pipeline.app import judging, leakage, publish, side_by_side
from pipeline.app.open_registry import open_registry
from pipeline.domain import comparison, gate
from pipeline.domain import decisions as records
from pipeline.domain.decisions import (
    Action,
    Candidate,
    ChampionChange,
    DecisionRecord,
    Score,
    TestSet,
)
from pipeline.errors import GliaflowError
from pipeline.params import Gate

TRIES = 5  # judgements of a version while others move the champion
OUTSIDE_POLICY = {"approval_hours"}


@dataclass(frozen=True)
class Publisher:
    """Registers and judges models of one checkout, and moves the champion.

    project: snapshot of the checkout. registry: opened once for all steps.
    """

    project: Project
    registry: Registry

    def register(self) -> Version:
        """Return the version of the model in the work tree; see `publish.register`."""
        return publish.register(self.project, self.registry)

    def decide(self, version: Version) -> DecisionRecord:
        """Judge a version that was just registered from the work tree; change nothing.

        Returns:
            The earlier decision on this version, if policy, champion and test patients are the
            same, and the registered files are still those that were judged.

        Raises:
            GliaflowError: files of the version or of the champion are missing or were changed.
        """
        self.registry.settle_last()
        champion = self.registry.champion()
        test = judging.test_patients(self.project)
        earlier = self._same_decision(version, champion, test.digest)
        if earlier is not None and judging.check_lineage(self.registry, version).passed:
            self.registry.verify(version)
            if champion is not None:
                self.registry.verify(champion)
            return earlier
        return self._judge(version, champion, test, action="judge", is_built_here=True)

    def apply(self, decision: DecisionRecord) -> DecisionRecord:
        """Record a decision, move the alias as decided, and show it on the report.

        Raises:
            GliaflowError: the champion has changed since the decision was made.
        """
        recorded = self.registry.carry_out(lambda: self._confirmed(decision))
        self._show(self._with_patients(decision, recorded))
        return recorded

    def promote_version(
        self, number: int, *, override: str | None = None, by: str | None = None
    ) -> DecisionRecord:
        """Promote a registered version, if the gate allows it or a person decides.

        Args:
            number: of the version.
            override: reason to promote against the gate; None: the gate decides.
            by: name of the person who answers for it. Without `override` it approves an
                inconclusive verdict.

        Returns:
            The decision; it is recorded whatever the verdict.

        Raises:
            GliaflowError: there is no such version, it carries no test Tversky, or its files
                are missing or were changed.
        """
        self.registry.settle_last()
        version = self.registry.version(number)
        if override is not None:
            return self._put_into_use(version, "override", override, by)
        if by is not None and self._waiting_for(version) is not None:
            return self._put_into_use(version, "approve", "approved", by)
        for _ in range(TRIES):
            decision = self.judge_again(version, by=by)
            try:
                recorded = self.registry.carry_out(partial(self._confirmed, decision))
            except _ChampionChangedError as error:
                changed = error
            else:
                return self._shown_if_current(recorded)
        raise changed

    def judge_again(self, version: Version, *, by: str | None = None) -> DecisionRecord:
        """Judge a registered version for a person, on the test patients of the work tree."""
        test = judging.test_patients(self.project)
        champion = self.registry.champion()
        return self._judge(version, champion, test, action="promote", is_built_here=False, by=by)

    def approve(self, number: int, *, by: str, why: str) -> DecisionRecord:
        """Promote a version whose verdict was inconclusive, as a person decided.

        Raises:
            GliaflowError: no decision on it waits for a person.
        """
        return self._put_into_use(self.registry.version(number), "approve", why, by)

    def refuse(self, number: int, *, by: str, why: str) -> DecisionRecord:
        """Reject a version whose verdict was inconclusive, as a person decided.

        Raises:
            GliaflowError: no decision on it waits for a person.
        """
        version = self.registry.version(number)
        return self._shown_if_current(
            self.registry.carry_out(lambda: self._refusal(version, "approve", by, why))
        )

    def expire_approvals(self) -> list[DecisionRecord]:
        """Reject every inconclusive verdict that nobody answered in time."""
        hours = self.project.params.gate.approval_hours
        why = f"nobody approved it within {hours:g} hours (gate.approval_hours)"
        oldest = _now(datetime.timedelta(hours=-hours))
        return [
            self._shown_if_current(
                self.registry.carry_out(
                    partial(
                        self._refusal,
                        self.registry.version(waiting.candidate.version),
                        "expire",
                        "gliaflow",
                        why,
                    )
                )
            )
            for waiting in records.waiting(self.registry.decisions())
            if waiting.when <= oldest
        ]

    def rollback(self, *, by: str | None = None, why: str | None = None) -> DecisionRecord:
        """Put the champion before into use again and withdraw the present one.

        Raises:
            GliaflowError: there is no champion before, or its files are missing or changed.
        """
        self.registry.settle_last()
        return self.registry.carry_out(lambda: self._rollback(by, why or "no reason was given"))

    def _show(self, decision: DecisionRecord) -> None:
        show(self.project, decision, self.registry.decisions())

    def _shown_if_current(self, decision: DecisionRecord) -> DecisionRecord:
        """Show a person's decision on the report if it is about the model of the work tree."""
        path = decision_path(self.project)
        shown = json_files.read_json(path) if path.exists() else None
        if shown and shown["candidate"]["digest"] == decision.candidate.digest:
            self._show(self._with_patients(decision, decision))
        return decision

    def _judge(
        self,
        version: Version,
        champion: Version | None,
        test: judging.TestPatients,
        *,
        action: Action,
        is_built_here: bool,
        by: str | None = None,
    ) -> DecisionRecord:
        """Score a version and the champion, make all checks, and let the gate decide."""
        project, registry = self.project, self.registry
        other = champion if champion and champion.version != version.version else None
        model = judging.load(registry, version)
        scored = judging.score(project, model, test, label=f"version {version.version}")
        checks = [judging.check_lineage(registry, version)]
        if is_built_here:
            checks = [
                judging.check_loads_back(project, version, model, scored),
                judging.check_complete(project, model),
                *checks,
                judging.check_training(project, scored),
            ]
        else:
            checks = [judging.check_predicts(version, scored), *checks]
        decided = registry.decisions()
        checks += judging.check_not_withdrawn(version)
        if action == "judge":
            standing = records.standing_decision(decided, version.digest)
            checks += judging.check_standing_decision(standing)
        scored_champion = self._scored_champion(other, test)
        scores = judging.patient_scores(
            test,
            scored,
            scored_champion,
            seen_by_candidate=judging.seen_patients(registry, version),
            seen_by_champion=judging.seen_patients(registry, other) if other else (),
        )
        if other is not None and scored_champion is not None:
            side_by_side.keep(
                project,
                scores,
                test.positions,
                candidate=scored.masks,
                champion=scored_champion.masks,
                key=side_by_side.key_of(version.version, other.version, test.digest),
            )
        looks = records.looks(decided, test.digest, version.digest)
        evidence = judging.evidence(
            project, scores, test, has_champion=other is not None, checks=checks, looks=looks
        )
        policy = policy_of(project.params.gate)
        decision = gate.decide(evidence, policy=policy)
        return records.judged(
            decision,
            candidate=Candidate(version.version, version.digest, Score.of(decision.test)),
            before=champion.version if champion else None,
            policy=policy,
            when=_now(),
            who=by or tracking.current_user(),
            test=TestSet(test.digest, len(test.names), looks),
            left_out=evidence.left_out,
            patients=scores,
            action=action,
        )

    def _scored_champion(
        self, champion: Version | None, test: judging.TestPatients
    ) -> judging.ScoredModel | None:
        if champion is None:
            return None
        model = judging.load(self.registry, champion)
        return judging.score(
            self.project, model, test, label=f"version {champion.version}, the champion"
        )

    def _same_decision(
        self, version: Version, champion: Version | None, test_digest: str
    ) -> DecisionRecord | None:
        """Return the last decision on a version, if everything it depends on is the same."""
        number = champion.version if champion else None
        policy = policy_of(self.project.params.gate)
        for decision in self.registry.decisions():
            if decision.candidate.digest == version.digest and decision.action != "rollback":
                is_valid = decision.policy == policy and decision.champion.after == number
                same_test = decision.test is not None and decision.test.digest == test_digest
                return decision if is_valid and same_test else None
        return None

    def _confirmed(self, decision: DecisionRecord) -> DecisionRecord:
        """Return a decision to carry out; the recorded one if it was carried out before."""
        for recorded in self.registry.decisions():
            if recorded == decision:
                return recorded
        self._refuse_other_champion(decision)
        return decision

    def _refuse_other_champion(self, decision: DecisionRecord) -> None:
        champion = self.registry.champion()
        number = champion.version if champion else None
        if number != decision.champion.before:
            raise _ChampionChangedError(
                f"the champion changed from version {decision.champion.before or 'none'} to "
                f"{number or 'none'} while version {decision.candidate.version} was judged; "
                "nothing was promoted: run the same command again"
            )

    def _put_into_use(
        self, version: Version, action: Action, why: str, by: str | None
    ) -> DecisionRecord:
        """Promote a version because a person says so; its files are verified first."""
        loads = self._gives_probabilities(version)
        return self._shown_if_current(
            self.registry.carry_out(
                lambda: self._by_person(version, action, why, by, extra=(loads,))
            )
        )

    def _by_person(
        self,
        version: Version,
        action: Action,
        why: str,
        by: str | None,
        *,
        extra: Sequence[gate.Reason] = (),
        verdict: gate.Verdict = "promote",
    ) -> DecisionRecord:
        """Return a person's decision on a version.

        Its reasons are what was checked now, and what the gate answered last, as such.
        """
        champion = self.registry.champion()
        before = champion.version if champion else None
        if action == "approve":
            self._expect_waiting(version)
        last = self._last_on(version)
        return DecisionRecord(
            verdict,
            (*_last_verdict(last), *extra),
            Candidate(version.version, version.digest, version.test_tversky),
            ChampionChange(before, version.version if verdict == "promote" else before),
            policy_of(self.project.params.gate),
            _now(),
            by or tracking.current_user(),
            action=action,
            why=why,
            test=last.test if last else None,
            comparison=last.comparison if last else None,
            based_on=(last.based_on or last.number) if last else None,
        )

    def _refusal(self, version: Version, action: Action, by: str, why: str) -> DecisionRecord:
        self._expect_waiting(version)
        reason = gate.Reason("approval", "failed", f"{why[:1].upper()}{why[1:]}.")
        decision = self._by_person(version, action, why, by, verdict="reject")
        return replace(decision, reasons=(*decision.reasons, reason))

    def _rollback(self, by: str | None, why: str) -> DecisionRecord:
        champion = self.registry.champion()
        if champion is None:
            raise GliaflowError(
                "there is no champion to roll back; `gliaflow registry` lists the versions"
            )
        version = self._champion_before(champion.version)
        judging.load(self.registry, version)
        decision = self._by_person(version, "rollback", why, by)
        return replace(decision, reasons=())

    def _champion_before(self, number: int) -> Version:
        """Return the last champion before the present one that is not withdrawn."""
        stack = records.champion_stack(self.registry.decisions())
        versions = {version.version: version for version in self.registry.versions()}
        for earlier in reversed(stack):
            version = versions.get(earlier)
            if version is not None and earlier != number and version.withdrawn is None:
                return version
        raise GliaflowError(
            f"no champion before version {number} can be put back; promote a version by hand: "
            "`gliaflow promote VERSION --override REASON --by NAME`"
        )

    def _last_on(self, version: Version) -> DecisionRecord | None:
        return next(
            (d for d in self.registry.decisions() if d.candidate.digest == version.digest), None
        )

    def _waiting_for(self, version: Version) -> DecisionRecord | None:
        """Return the inconclusive decision on a version that a person may still answer."""
        return next(
            (
                decision
                for decision in records.waiting(self.registry.decisions())
                if decision.candidate.digest == version.digest
            ),
            None,
        )

    def _expect_waiting(self, version: Version) -> None:
        if self._waiting_for(version) is None:
            raise GliaflowError(
                f"no decision on version {version.version} waits for a person; `gliaflow registry` "
                "lists the decisions, and --override REASON --by NAME promotes against the gate"
            )

    def _gives_probabilities(self, version: Version) -> gate.Reason:
        """Load a version and run it on a black scan."""
        model = judging.load(self.registry, version)
        black = np.zeros((1, *model.shape), np.uint8)
        values = model.segment(black).probability
        passed = bool(np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all())
        if not passed:
            raise GliaflowError(
                f"version {version.version} gives values that are no probabilities; nothing was "
                "promoted: choose another version"
            )
        return gate.Reason(
            "loads back",
            "passed",
            f"Version {version.version} loads from the registry and gives probabilities.",
        )

    def _with_patients(self, decision: DecisionRecord, recorded: DecisionRecord) -> DecisionRecord:
        """Return the recorded decision with the scores of patients, which its list omits."""
        number = recorded.number
        has_scores = decision.comparison is not None and decision.comparison.patients
        if has_scores or number is None:
            return replace(decision, number=number)
        return self.registry.full_decision(number)


class _ChampionChangedError(GliaflowError):
    """Somebody else moved the champion while a version was judged."""


def show(
    project: Project, decision: DecisionRecord, decided: Sequence[DecisionRecord] = ()
) -> None:
    """Write decision.json and put the decision on the report.

    Args:
        decided: all decisions, newest first, for the history of champions.
    """
    json_files.write_json(decision_path(project), decision.to_json())
    page = project.path("page")
    if page.exists():
        text = html_page.with_decision(
            page.read_text(encoding="utf-8"),
            decision.to_json(),
            leakage=leakage.stored_result(project),
            champions=[moved.to_json() for moved in decided if moved.moves_champion],
            pictures=side_by_side.stored(project, decision),
        )
        files.write_text(project.path("index"), text)


def open_publisher(project: Project) -> Publisher:
    return Publisher(project, open_registry(project))


def expire_approvals(project: Project) -> list[DecisionRecord]:
    """Reject inconclusive verdicts that nobody answered in time, if the last one of this
    checkout was inconclusive; MLflow is not asked otherwise.
    """
    path = decision_path(project)
    if not path.exists() or json_files.read_json(path)["verdict"] != "inconclusive":
        return []
    return open_publisher(project).expire_approvals()


def policy_of(section: Gate) -> gate.Policy:
    return gate.Policy(**section.model_dump(exclude=OUTSIDE_POLICY))


def decision_path(project: Project) -> Path:
    """Return the path of decision.json, in the folder of the report that shows it."""
    return project.path("index").with_name("decision.json")


def _last_verdict(last: DecisionRecord | None) -> list[gate.Reason]:
    """Return the gate's last verdict on a version as one reason, by its number and date."""
    if last is None:
        return []
    rules = ", ".join(reason.rule for reason in last.reasons if not reason.passed)
    answers: dict[gate.Verdict, comparison.Answer] = {
        "promote": "passed",
        "reject": "failed",
        "inconclusive": "cannot tell",
    }
    return [
        gate.Reason(
            "gate",
            answers[last.verdict],
            f"Decision {last.number} of {last.when[:10]} on this version was: {last.verdict}"
            + (f"; not passed: {rules}." if rules else "."),
        )
    ]


def _now(shift: datetime.timedelta = datetime.timedelta()) -> str:
    return (datetime.datetime.now(datetime.UTC) + shift).isoformat(timespec="seconds")
