"""What people and bots say to a run: every message as a signal (works while no worker is up) and as
an update (checked first, answers at once), with one body. A handler only takes note; the run
acts."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from models.machine import CheckResult
    from models.messages import (
        Abort,
        Commit,
        Message,
        Pause,
        Reply,
        Resume,
        Retry,
        RunFailover,
        SetLimits,
        Verify,
    )
    from models.status import AuditEntry, Effect, Phase, Round, RunState
from workflows.steps import Steps

# Enough to recognise every repetition a bot may send; the history is the full record.
_REMEMBERED_REQUESTS = 200


class Messages:
    """The handlers of `FailbackWorkflow`. They need `state` and `steps` of the run."""

    state: RunState
    steps: Steps

    # --- queries ---------------------------------------------------------------------------

    @workflow.query(description="All that the run knows of itself.")
    def status(self) -> RunState:
        """The run's state."""
        return self.state

    @workflow.query(description="The preflight checks and their verdicts.")
    def preflight(self) -> list[CheckResult]:
        """The checks of the last preflight."""
        return self.state.checks

    @workflow.query(description="Rounds that the targets were brought to.")
    def recovery_points(self) -> list[Round]:
        """Every round that ended."""
        return [done for done in self.state.rounds if done.ended_at is not None]

    @workflow.query(description="Every side effect of the run and where it stands.")
    def effects(self) -> list[Effect]:
        """The effects list."""
        return self.state.effects

    # --- signals ---------------------------------------------------------------------------

    @workflow.signal(name="run_failover", description="Run failover now: leave `ready`.")
    def signal_run_failover(self, message: RunFailover) -> None:
        """As a signal."""
        self._note("run_failover", message)

    @workflow.signal(name="commit", description="End the failback for good; Azure's side goes.")
    def signal_commit(self, message: Commit) -> None:
        """As a signal."""
        self._note("commit", message)

    @workflow.signal(name="abort", description="Undo everything; both sides as they were.")
    def signal_abort(self, message: Abort) -> None:
        """As a signal."""
        self._note("abort", message)

    @workflow.signal(name="pause", description="Hold the copy between extents.")
    def signal_pause(self, message: Pause) -> None:
        """As a signal."""
        self._note("pause", message)

    @workflow.signal(name="resume", description="Go on after `pause`.")
    def signal_resume(self, message: Resume) -> None:
        """As a signal."""
        self._note("resume", message)

    @workflow.signal(name="retry", description="Try the blocked step again.")
    def signal_retry(self, message: Retry) -> None:
        """As a signal."""
        self._note("retry", message)

    @workflow.signal(name="set_limits", description="Change the bandwidth limit of running copies.")
    def signal_set_limits(self, message: SetLimits) -> None:
        """As a signal."""
        self._note("set_limits", message)

    @workflow.signal(name="verify", description="Read every byte on both sides and compare.")
    def signal_verify(self, message: Verify) -> None:
        """As a signal."""
        self._note("verify", message)

    # --- updates ---------------------------------------------------------------------------

    @workflow.update(name="run_failover", description="Run failover now: leave `ready`.")
    def update_run_failover(self, message: RunFailover) -> Reply:
        """As an update."""
        return self._note("run_failover", message)

    @update_run_failover.validator
    def _check_run_failover(self, message: RunFailover) -> None:
        self._check("run_failover", message)

    @workflow.update(name="commit", description="End the failback for good; Azure's side goes.")
    def update_commit(self, message: Commit) -> Reply:
        """As an update."""
        return self._note("commit", message)

    @update_commit.validator
    def _check_commit(self, message: Commit) -> None:
        self._check("commit", message)

    @workflow.update(name="abort", description="Undo everything; both sides as they were.")
    def update_abort(self, message: Abort) -> Reply:
        """As an update."""
        return self._note("abort", message)

    @update_abort.validator
    def _check_abort(self, message: Abort) -> None:
        self._check("abort", message)

    @workflow.update(name="pause", description="Hold the copy between extents.")
    def update_pause(self, message: Pause) -> Reply:
        """As an update."""
        return self._note("pause", message)

    @update_pause.validator
    def _check_pause(self, message: Pause) -> None:
        self._check("pause", message)

    @workflow.update(name="resume", description="Go on after `pause`.")
    def update_resume(self, message: Resume) -> Reply:
        """As an update."""
        return self._note("resume", message)

    @update_resume.validator
    def _check_resume(self, message: Resume) -> None:
        self._check("resume", message)

    @workflow.update(name="retry", description="Try the blocked step again.")
    def update_retry(self, message: Retry) -> Reply:
        """As an update."""
        return self._note("retry", message)

    @update_retry.validator
    def _check_retry(self, message: Retry) -> None:
        self._check("retry", message)

    @workflow.update(name="set_limits", description="Change the bandwidth limit of running copies.")
    def update_set_limits(self, message: SetLimits) -> Reply:
        """As an update."""
        return self._note("set_limits", message)

    @update_set_limits.validator
    def _check_set_limits(self, message: SetLimits) -> None:
        self._check("set_limits", message)

    @workflow.update(name="verify", description="Read every byte on both sides and compare.")
    def update_verify(self, message: Verify) -> Reply:
        """As an update."""
        return self._note("verify", message)

    @update_verify.validator
    def _check_verify(self, message: Verify) -> None:
        self._check("verify", message)

    # --- one body --------------------------------------------------------------------------

    def _check(self, name: str, message: Message) -> None:
        """Reject what cannot be done now, saying why and what can."""
        if message.request_id and message.request_id in self.state.seen_requests:
            return
        refusal = self._refusal(name, message)
        if refusal:
            allowed = ", ".join(self.state.allowed_messages) or "nothing, the run is over"
            raise ApplicationError(
                f"{name} is not possible now: {refusal} Allowed now: {allowed}.",
                type="FB-REJECTED",
                non_retryable=True,
            )

    def _refusal(self, name: str, message: Message) -> str:
        state = self.state
        if name not in state.allowed_messages:
            return f"the run is in phase {state.phase.value}."
        if isinstance(message, RunFailover) and message.recovery_point != "latest":
            return f"recovery point {message.recovery_point!r} is not kept; only `latest` is."
        if isinstance(message, Commit) and state.phase is Phase.VALIDATING and not message.override:
            return "health checks do not hold yet; wait, or say `override`."
        if isinstance(message, Abort) and not message.discard_onprem_changes and state.booted:
            return (
                "the on-premises machine has booted and what it wrote since would be lost; "
                "say `discard_onprem_changes` if that is meant."
            )
        return ""

    def _note(self, name: str, message: Message) -> Reply:
        """Take note of a message once; the run's own loop acts on it."""
        state = self.state
        if message.request_id and message.request_id in state.seen_requests:
            return self._reply(f"{name} was taken note of before", repeated=True)
        if message.request_id:
            state.seen_requests = [*state.seen_requests, message.request_id][-_REMEMBERED_REQUESTS:]
        refusal = self._refusal(name, message)
        self._audit(message, name if not refusal else f"{name} (ignored: {refusal})")
        if refusal:
            return Reply(accepted=False, phase=state.phase.value, message=refusal)
        return self._reply(self._take(message))

    def _take(self, message: Message) -> str:
        state = self.state
        if isinstance(message, RunFailover):
            state.failover = message
            return "failover follows" + (" once the run is resumed" if state.paused else "")
        if isinstance(message, Commit):
            state.commit_override = state.commit_override or message.override
            if message.by not in state.approvals:
                state.approvals.append(message.by)
            missing = state.spec.commit.approvers - len(state.approvals)
            return "one more person has to say commit" if missing > 0 else "commit follows"
        if isinstance(message, Abort):
            state.abort_requested = True
            state.discard_onprem_changes |= message.discard_onprem_changes
            return "everything is undone now"
        if isinstance(message, Pause | Resume):
            state.paused = isinstance(message, Pause)
            state.limits_said += 1
            return "held between extents" if state.paused else "goes on"
        if isinstance(message, SetLimits):
            state.bandwidth_limit = message.bandwidth_limit
            state.limits_said += 1
            return "takes effect within seconds"
        if isinstance(message, Verify):
            state.verify_asked = True
            return "both sides are read whole now"
        self.steps.retry()
        return "the blocked step is tried again"

    def _audit(self, message: Message, what: str) -> None:
        self.state.audit.append(
            AuditEntry(
                at=workflow.now(),
                by=message.by,
                what=what,
                reason=message.reason,
                request_id=message.request_id,
            )
        )

    def _reply(self, text: str, *, repeated: bool = False) -> Reply:
        return Reply(repeated=repeated, phase=self.state.phase.value, message=text)
