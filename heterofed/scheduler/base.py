"""What both roles share: settings, template methods, lazy models, metrics, and the frame around a run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout
from torch import nn
from torch.optim import Optimizer

from heterofed.config import Settings
from heterofed.errors import ConfigError, HeterofedError, TemplateError
from heterofed.features.alignment import OrderedIds, checked_ids
from heterofed.features.batches import RoundOrder
from heterofed.features.embedder import BatchSource, EmbeddingForm, PlannedBatches, UserBatches
from heterofed.files import make_folder
from heterofed.metrics.progress import logger
from heterofed.metrics.tables import MetricsTable, declared_metrics
from heterofed.scheduler.checks import check_seconds
from heterofed.scheduler.link import Link
from heterofed.scheduler.outputs import write_outputs
from heterofed.scheduler.seat import Seat, TaskResult, presence
from heterofed.scheduler.splitting import checked_split
from heterofed.scheduler.templates import PartyTemplates
from heterofed.tasks.model import PartyStatus, check_feature_key
from heterofed.training.checkpoint import Checkpointer
from heterofed.wire.transport import Transport


class Scheduler(PartyTemplates):
    """One party of a task; subclass `HostScheduler` or `CollaboratorScheduler` rather than this.

    Args:
        feature_key: this party's name in the task, and the name of its embedding.
        name: what people call this run; the task's name by default.
        schedule_timeout: longest wait for another party's answer between two steps, in seconds; 0: no limit.
        data_channel_timeout: (longest wait for room in a peer's queue, longest wait for a part of the
            intersection), in seconds; 0: no limit.
        is_feature_trainable: False freezes this party's feature model.
        out_dir: folder for checkpoints and results; `runs/<task id>/<feature key>` by default.
        settings: what `HETEROFED_*` variables say, unless given.

    Raises:
        ConfigError: an argument cannot work.
    """

    def __init__(
        self,
        feature_key: str,
        name: str | None = None,
        schedule_timeout: float = 30,
        data_channel_timeout: tuple[float, float] = (30, 60),
        is_feature_trainable: bool = True,
        *,
        out_dir: str | Path | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.feature_key = check_feature_key(feature_key)
        if name is not None and (not isinstance(name, str) or not name):
            raise ConfigError(f"name is {name!r}", expected="a non-empty str, or None for the task id")
        check_seconds("schedule_timeout", schedule_timeout)
        if not isinstance(data_channel_timeout, Sequence) or len(data_channel_timeout) != 2:
            raise ConfigError(f"data_channel_timeout is {data_channel_timeout!r}", expected="two numbers of seconds")
        for each in data_channel_timeout:
            check_seconds("data_channel_timeout", each)
        self.name = name
        self.schedule_timeout = float(schedule_timeout)
        self.data_channel_timeout = (float(data_channel_timeout[0]), float(data_channel_timeout[1]))
        self.is_feature_trainable = bool(is_feature_trainable)
        self.out_dir = None if out_dir is None else Path(out_dir)
        self.settings = settings or Settings.from_env()
        self._metric_sets = {name: MetricsTable(keys) for name, keys in declared_metrics(type(self)).items()}
        self._seat: Seat | None = None
        self._party_link: Link | None = None
        self._party_transport: Transport | None = None
        self._session_key = b""
        self._warned: set[str] = set()
        self._at_the_end = ExitStack()
        self._round_number = 0
        self._intersection: OrderedIds | None = None
        self._id_split: tuple[list[str], list[str]] = ([], [])

    def validate_context(self) -> None:
        """Check that this party can run. Extend it by calling `super().validate_context()` first.

        Raises:
            ConfigError: a `make_*` method gave something else than it should, or the template methods are incomplete.
        """
        if not isinstance(self.feature_model, nn.Module):
            raise self._made_wrong("make_feature_model", self.feature_model, "a torch.nn.Module")
        if self.is_trainable and not isinstance(self.feature_optimizer, Optimizer):
            raise self._made_wrong("make_feature_optimizer", self.feature_optimizer, "a torch.optim.Optimizer")
        by_hand = [self._wrote(each) for each in ("iterate_train_feature", "iterate_test_feature")]
        if any(by_hand) == self._wrote("load_batch") or any(by_hand) != all(by_hand):
            raise ConfigError(
                f"{type(self).__name__} does not say how to make its embeddings",
                expected="iterate_train_feature and iterate_test_feature, or load_batch",
                advice="Write one of the two, not parts of both.",
            )

    # --- what users may call ------------------------------------------------------------------------------------------

    def get_metrics(self, name: str) -> MetricsTable:
        """Return the metric set that `register_metrics(name=…)` declared.

        Raises:
            ConfigError: no set has this name.
        """
        try:
            return self._metric_sets[name]
        except KeyError:
            known = ", ".join(self._metric_sets) or "none"
            raise ConfigError(
                f"there is no metric set {name!r}; declared: {known}",
                advice=f"Put @register_metrics(name={name!r}, keys=[…]) on a method of {type(self).__name__}.",
            ) from None

    def push_log(self, message: str) -> None:
        """Show a line to this party's user and keep it with the task.

        Raises:
            ConfigError: the message is empty or no str.
        """
        if not isinstance(message, str) or not message:
            raise ConfigError("push_log got an empty message", expected="a non-empty str")
        logger.info("%s", message)
        if self._seat is not None:
            self._seat.record.log(message)

    @property
    def task_id(self) -> str:
        """Id of the task that this party is in.

        Raises:
            ConfigError: it is in none yet.
        """
        return self._at_seat.task_id

    @property
    def current_round(self) -> int:
        """Number of the round in progress, or of the last one; from 1, and 0 before the first."""
        return self._round_number

    @property
    def id_intersection(self) -> OrderedIds:
        """The ids that all parties share, sorted.

        Raises:
            ConfigError: the ids are not matched yet.
        """
        if self._intersection is None:
            raise ConfigError("the ids of the parties are not matched yet")
        return self._intersection

    @property
    def train_ids(self) -> list[str]:
        """The shared ids to train on, in the order of every party."""
        return self._id_split[0]

    @property
    def test_ids(self) -> list[str]:
        """The shared ids to test on, in the order of every party."""
        return self._id_split[1]

    @cached_property
    def feature_model(self) -> nn.Module:
        """This party's feature model, made at its first use."""
        with self._calling("make_feature_model"):
            model = self.make_feature_model()
        if isinstance(model, nn.Module) and not self.is_feature_trainable:
            model.requires_grad_(False)
        return model

    @cached_property
    def feature_optimizer(self) -> Optimizer:
        """The optimizer of the feature model, made at its first use."""
        with self._calling("make_feature_optimizer"):
            return self.make_feature_optimizer(self.feature_model)

    @cached_property
    def is_trainable(self) -> bool:
        """False when the feature model is frozen or has no parameter that learns."""
        return self.is_feature_trainable and any(each.requires_grad for each in self.feature_model.parameters())

    # --- a run --------------------------------------------------------------------------------------------------------

    def take_part(self, seat: Seat) -> TaskResult:
        """Run this party to the end of its task. `launch_task` and `run_locally` call it.

        Raises:
            HeterofedError: the task cannot go on; every other party has been told why.
        """
        if self._seat is not None:
            raise ConfigError("this scheduler has run already", advice="Make a new one for each launch.")
        self._seat = seat
        if self.out_dir is None:
            self.out_dir = Path("runs") / seat.task_id / self.feature_key
        seat.progress.say(f"{self.feature_key} takes part in {seat.task_name} (task {seat.task_id})")
        try:
            with presence(seat, self._give_up), ExitStack() as self._at_the_end:
                return self._run(seat)
        finally:
            if self._party_transport is not None:
                self._party_transport.close()

    @abstractmethod
    def _run(self, seat: Seat) -> TaskResult:
        """Go through the course of the task."""

    def _give_up(self, error: HeterofedError) -> None:
        """Say where the error belongs, tell the peers, and note it."""
        phase = self._party_link.phase().value if self._party_link is not None else "starting"
        error.located(party=self.feature_key, phase=phase)
        if self._party_link is not None:
            self._party_link.abort(error)
        self._at_seat.record.party_is(PartyStatus.FAILED, error.for_peers())

    def _prepare(self) -> list[str]:
        """Do what needs no other party: check the set-up, prove that outputs can be written, load the ids."""
        with self._calling("validate_context"):
            self.validate_context()
        self._claim_results_folder()
        with self._calling("load_local_ids"):
            ids = self.load_local_ids()
        return checked_ids(ids, "load_local_ids")

    def _claim_results_folder(self) -> None:
        """Make the folder for results and keep every other party out of it until this one ends."""
        lock = FileLock(make_folder(self._results_folder) / ".in-use.lock")
        try:
            self._at_the_end.enter_context(lock.acquire(timeout=0))
        except Timeout:
            raise ConfigError(
                f"another running party writes to {self._results_folder}",
                expected="a folder of its own for every party",
                advice="Give each party its own out_dir.",
            ) from None

    def _split_ids(self, intersection: Sequence[str]) -> None:
        """Let the user split the shared ids, and check the result."""
        self._intersection = OrderedIds(intersection)
        with self._calling("split_dataset"):
            split = self.split_dataset(self._intersection)
        self._id_split = checked_split(split, self._intersection, party=self.feature_key, own_batches=self.own_batches)

    @property
    def own_batches(self) -> bool:
        """True when this party's code chooses its batches (`iterate_*`), False when it wrote `load_batch`."""
        return not self._wrote("load_batch")

    def _pass_over(self, order: RoundOrder, *, train: bool, with_labels: bool) -> BatchSource:
        """Return the batches of one pass by the door that the user wrote."""
        method = "iterate_train_feature" if train else "iterate_test_feature"
        if not self.own_batches:
            form = EmbeddingForm(self.feature_key, "the feature model")
            return PlannedBatches(
                order,
                load=self.load_batch,
                model=self.feature_model,
                with_labels=with_labels,
                form=form,
                guard=self._calling,
            )
        form = EmbeddingForm(self.feature_key, method)
        ids = list(self.train_ids if train else self.test_ids)
        return UserBatches(
            lambda: getattr(self, method)(self.feature_model, ids),
            rows_expected=len(ids),
            with_labels=with_labels,
            form=form,
            method=method,
            guard=self._calling,
            warn=self._warn_once,
        )

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("%s: %s", self.feature_key, text)

    def _set_mode(self, *, training: bool) -> None:
        """Switch the models to training or to evaluation; a frozen one always evaluates."""
        self.feature_model.train(training and self.is_feature_trainable)

    def _keep_checkpoint(self) -> None:
        Checkpointer(self._results_folder / "checkpoints", self._kept_models(), self._kept_optimizers()).save(
            self._round_number
        )

    def _write_outputs(self) -> TaskResult:
        names = {"feature": f"feature_model_{self.feature_key}", "infer": "infer_model"}
        models = {names[key]: model for key, model in self._kept_models().items()}
        files = write_outputs(self._results_folder, models, self._metric_sets)
        return TaskResult(
            self.task_id, self.feature_key, self._round_number, self._results_folder, files, dict(self._metric_sets)
        )

    def _kept_models(self) -> dict[str, nn.Module]:
        return {"feature": self.feature_model}

    def _kept_optimizers(self) -> dict[str, Optimizer]:
        return {"feature": self.feature_optimizer} if self.is_trainable else {}

    # --- small things -------------------------------------------------------------------------------------------------

    @property
    def _at_seat(self) -> Seat:
        if self._seat is None:
            raise ConfigError("this scheduler is in no task yet", advice="Call launch_task(task_id=…).")
        return self._seat

    @property
    def _linked(self) -> Link:
        if self._party_link is None:
            raise ConfigError("this party has no link to the others yet")
        return self._party_link

    @property
    def _transport_open(self) -> Transport:
        if self._party_transport is None:
            raise ConfigError("this party has no link to the others yet")
        return self._party_transport

    @property
    def _room_s(self) -> float:
        """How long to wait for room in a peer's queue, in seconds."""
        return self.data_channel_timeout[0]

    @property
    def _results_folder(self) -> Path:
        if self.out_dir is None:
            raise ConfigError("this scheduler is in no task yet", advice="Call launch_task(task_id=…).")
        return self.out_dir

    def _wrote(self, method: str) -> bool:
        """Whether the user's class overrides a template method."""
        return getattr(type(self), method) is not getattr(PartyTemplates, method)

    def _made_wrong(self, method: str, value: object, expected: str) -> ConfigError:
        return ConfigError(f"{type(self).__name__}.{method}() returned {type(value).__name__}", expected=expected)

    @contextmanager
    def _calling(self, method: str) -> Iterator[None]:
        """Mark the body as a call of the user's code: what it raises becomes a TemplateError that names it.

        `method` is the name of a template method, or a few words for what was called.

        The text of the user's exception may quote data, so only its type goes into ours; the exception itself stays
        with this party as `__cause__`.
        """
        try:
            yield
        except HeterofedError:
            raise
        except Exception as error:
            called = f"{type(self).__name__}.{method}()" if method.isidentifier() else method
            raise TemplateError(
                f"{called} raised {type(error).__name__}",
                party=self.feature_key,
                phase=self._party_link.phase().value if self._party_link is not None else None,
                advice=f"The traceback is in the output of {self.feature_key}.",
            ) from error
