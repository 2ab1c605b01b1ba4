"""A collaborator as scripts for the source system write it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch.utils.data as td
import torchvision
from torch import nn, optim

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from heterofed.hetero_nn import HeteroNNCollaboratorScheduler
from heterofed.hetero_nn.psi import RSAPSICollaboratorScheduler
from tests.hetero_nn.source_style_net import HalfNet

task_id, data_dir, batch_size, train_count, test_count = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
responder = RSAPSICollaboratorScheduler  # imported and unused, as there


def loader(train: bool, size: int) -> Any:
    steps = [torchvision.transforms.ToTensor(), torchvision.transforms.Normalize((0.1307,), (0.3081,))]
    data = torchvision.datasets.MNIST(
        data_dir, train=train, download=True, transform=torchvision.transforms.Compose(steps)
    )
    return td.DataLoader(data, batch_size=size, shuffle=False)


class DemoCollaborator(HeteroNNCollaboratorScheduler):
    def __init__(
        self,
        feature_key: str,
        batch_size: int,
        name: str | None = None,
        schedule_timeout: int = 30,
        data_channel_timeout: tuple[int, int] = (30, 60),
        is_feature_trainable: bool = True,
    ) -> None:
        super().__init__(
            feature_key=feature_key,
            name=name,
            schedule_timeout=schedule_timeout,
            data_channel_timeout=data_channel_timeout,
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
        return optim.SGD(feature_model.parameters(), lr=0.01, momentum=0.1)

    def iterate_train_feature(self, feature_model: nn.Module, train_ids: list[str]) -> Any:
        if len(train_ids) != train_count:
            raise ValueError("train samples lost")
        for images, _ in self.train_loader:
            yield feature_model(images[:, :, :, 14:])

    def iterate_test_feature(self, feature_model: nn.Module, test_ids: list[str]) -> Any:
        if len(test_ids) != test_count:
            raise ValueError("test samples lost")
        for images, _ in self.test_loader:
            yield feature_model(images[:, :, :, 14:])


scheduler = DemoCollaborator(
    feature_key="demo_collaborator",
    batch_size=batch_size,
    name="demo_hetero_collaborator",
    data_channel_timeout=(300, 300),
)
scheduler.launch_task(task_id=task_id)
