"""A host as scripts for the source system write it: own loaders in the constructor, sets of ids, iterators.

Its split_dataset makes test ids that nobody has, as the source system's own demo does; its iterators do not read them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import time
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.data as td
import torchvision
from torch import nn, optim

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from heterofed import logger
from heterofed.hetero_nn import HeteroNNHostScheduler
from heterofed.hetero_nn.psi import RSAPSIInitiatorScheduler
from heterofed.scheduler import register_metrics
from tests.hetero_nn.source_style_net import HalfNet

task_id, data_dir, batch_size, train_count, test_count = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
initiator = RSAPSIInitiatorScheduler  # imported and unused, as there


class Fusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.log_softmax(self.linear(x), dim=-1)


def loader(train: bool, size: int) -> Any:
    steps = [torchvision.transforms.ToTensor(), torchvision.transforms.Normalize((0.1307,), (0.3081,))]
    data = torchvision.datasets.MNIST(
        data_dir, train=train, download=True, transform=torchvision.transforms.Compose(steps)
    )
    return td.DataLoader(data, batch_size=size, shuffle=False)


class DemoHost(HeteroNNHostScheduler):
    def __init__(
        self,
        feature_key: str,
        batch_size: int,
        name: str | None = None,
        max_rounds: int = 0,
        calculation_timeout: int = 300,
        schedule_timeout: int = 30,
        data_channel_timeout: tuple[int, int] = (30, 60),
        log_rounds: int = 0,
        is_feature_trainable: bool = True,
    ) -> None:
        super().__init__(
            feature_key=feature_key,
            name=name,
            max_rounds=max_rounds,
            calculation_timeout=calculation_timeout,
            schedule_timeout=schedule_timeout,
            data_channel_timeout=data_channel_timeout,
            log_rounds=log_rounds,
            is_feature_trainable=is_feature_trainable,
        )
        self.batch_size = batch_size
        self.train_loader, self.test_loader = loader(True, batch_size), loader(False, batch_size)

    def load_local_ids(self) -> list[str]:
        train = [str(each) for each in self.train_loader.sampler]
        return train + [str(-1 - each) for each in self.test_loader.sampler]

    def split_dataset(self, id_intersection: Any) -> tuple[set[str], set[str]]:
        numbers = {int(each) for each in id_intersection}
        return {str(each) for each in numbers if each >= 0}, {str(each + 1) for each in numbers if each < 0}

    def make_feature_model(self) -> nn.Module:
        return HalfNet()

    def make_feature_optimizer(self, feature_model: nn.Module) -> optim.Optimizer:
        return optim.SGD(feature_model.parameters(), lr=0.01, momentum=0.5)

    def iterate_train_feature(self, feature_model: nn.Module, train_ids: list[str]) -> Any:
        if len(train_ids) != train_count:
            raise ValueError("train samples lost")
        for images, labels in self.train_loader:
            yield feature_model(images[:, :, :, :14]), labels

    def iterate_test_feature(self, feature_model: nn.Module, test_ids: list[str]) -> Any:
        if len(test_ids) != test_count:
            raise ValueError("test samples lost")
        for images, labels in self.test_loader:
            yield feature_model(images[:, :, :, :14]), labels

    def make_infer_model(self) -> nn.Module:
        return Fusion()

    def make_infer_optimizer(self, infer_model: nn.Module) -> optim.Optimizer:
        return optim.SGD(infer_model.parameters(), lr=0.01, momentum=0.1)

    def train_a_batch(self, feature_projection: dict[str, torch.Tensor], labels: torch.Tensor) -> None:
        fused = torch.concat((feature_projection["demo_host"], feature_projection["demo_collaborator"]), dim=1)
        self.optimizer.zero_grad()
        loss = F.nll_loss(self.infer_model(fused), labels)
        loss.backward()
        self.optimizer.step()

    @register_metrics(name="timer", keys=["run_time"])
    @register_metrics(name="test_results", keys=["average_loss", "accuracy", "correct_rate"])
    def test(self, batched_feature_projections: Any, batched_labels: Any) -> None:
        start = time()
        test_loss: Any = 0
        correct = 0
        for projection, labels in zip(batched_feature_projections, batched_labels, strict=True):
            fused = torch.concat((projection["demo_host"], projection["demo_collaborator"]), dim=1)
            out = self.infer_model(fused)
            test_loss += F.nll_loss(out, labels)
            correct += int(out.max(1)[1].eq(labels).sum().item())
        test_loss /= len(self.test_loader.dataset)
        accuracy = correct / len(self.test_loader.dataset)
        logger.info(f"Test set: Average loss: {test_loss:.4f}")
        self.get_metrics("timer").append_metrics_item({"run_time": time() - start})
        self.get_metrics("test_results").append_metrics_item(
            {"average_loss": test_loss, "accuracy": accuracy, "correct_rate": 100.0 * accuracy}
        )

    def validate_context(self) -> None:
        super().validate_context()
        if not len(self.train_loader):
            raise ValueError("failed to load train data")


scheduler = DemoHost(
    feature_key="demo_host",
    batch_size=batch_size,
    name="demo_hetero_host",
    max_rounds=2,
    calculation_timeout=60,
    log_rounds=1,
)
scheduler.launch_task(task_id=task_id)
