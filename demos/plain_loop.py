r"""Two parties train one network, each with its own half of every picture. No framework: the whole idea on one page.

    host           left half   ->  feature model --\
                                                    cat -> infer model -> loss <- labels (the host's)
    collaborator   right half  ->  feature model --/

Neither half leaves its party. Two things cross, and nothing else: the embeddings (what the collaborator's model makes
of its half) on the way there, and the gradient of the loss with respect to them on the way back. Read `main` from top
to bottom: its comments are numbered in the order in which a batch travels. Here one process plays both parties; what
heterofed adds is all about doing the same between two that share no memory.

    pip install torch scikit-learn
    python demos/plain_loop.py
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn


def load_pictures(data_dir: str | None) -> tuple[Tensor, Tensor]:
    """Return grey levels (N, height, width), 0 to 1, and labels (N,): MNIST from a folder, or scikit-learn's digits."""
    if data_dir is not None:
        from torchvision.datasets import MNIST

        digits = MNIST(data_dir, train=True)
        return digits.data / 255, digits.targets
    from sklearn.datasets import load_digits

    digits = load_digits()
    return torch.tensor(digits.images, dtype=torch.float32) / 16, torch.tensor(digits.target)


def make_feature_model(pixels: int) -> nn.Module:
    """A party's own network: its half of a picture in, an embedding of 16 numbers out."""
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 64), nn.ReLU(), nn.Linear(64, 16))


def main() -> None:
    """Train, and print the loss and the accuracy on pictures that were not trained on."""
    parser = argparse.ArgumentParser(description="Two parties, one network, no framework.")
    parser.add_argument("--rounds", type=int, default=10, help="passes over the training pictures")
    parser.add_argument("--data-dir", help="folder that holds MNIST/raw; without it, scikit-learn's small digits")
    args = parser.parse_args()
    torch.manual_seed(0)

    # What each party holds: row i is the same picture at both, and only the host knows which digit it shows.
    pictures, labels = load_pictures(args.data_dir)
    middle = pictures.shape[2] // 2
    host_half, collaborator_half = pictures[:, :, :middle], pictures[:, :, middle:]
    first_test_row = len(labels) * 4 // 5
    train_rows, test_rows = torch.arange(first_test_row), torch.arange(first_test_row, len(labels))

    host_model = make_feature_model(host_half[0].numel())
    host_optimizer = torch.optim.SGD(host_model.parameters(), lr=0.1, momentum=0.5)
    infer_model = nn.Linear(16 + 16, 10)  # the host's as well: it joins both embeddings into one answer
    infer_optimizer = torch.optim.SGD(infer_model.parameters(), lr=0.1, momentum=0.5)
    loss_function = nn.CrossEntropyLoss()

    collaborator_model = make_feature_model(collaborator_half[0].numel())
    collaborator_optimizer = torch.optim.SGD(collaborator_model.parameters(), lr=0.1, momentum=0.5)

    for round_number in range(1, args.rounds + 1):
        total = 0.0
        shuffled = train_rows[torch.randperm(len(train_rows))]
        for rows in torch.split(shuffled, 32):  # 1. both parties take the same rows, in the same order
            # 2. The collaborator computes its embedding, and keeps the graph that leads to it.
            embedding = collaborator_model(collaborator_half[rows])

            # 3. There: only the numbers cross. At the host they are a new leaf, where its graph begins.
            received = embedding.detach().clone().requires_grad_()

            # 4. The host computes its own embedding, joins the two, and finds the loss.
            fused = torch.cat([host_model(host_half[rows]), received], dim=1)
            loss = loss_function(infer_model(fused), labels[rows])

            # 5. Its backward pass fills in the gradients of both of its models, and of the leaf. It steps.
            host_optimizer.zero_grad()
            infer_optimizer.zero_grad()
            loss.backward()
            host_optimizer.step()
            infer_optimizer.step()

            # 6. Back: the gradient of the leaf crosses, the shape of the embedding. The collaborator goes on from it
            #    through the graph it kept, and steps: exactly what one big network would have done in one piece.
            collaborator_optimizer.zero_grad()
            embedding.backward(received.grad)
            collaborator_optimizer.step()
            total += loss.item() * len(rows)

        with torch.no_grad():  # to test, and later to predict, the embeddings cross the same way; nothing comes back
            embedding = collaborator_model(collaborator_half[test_rows])
            answers = infer_model(torch.cat([host_model(host_half[test_rows]), embedding], dim=1)).argmax(dim=1)
        accuracy = (answers == labels[test_rows]).float().mean().item()
        print(f"round {round_number:2}   loss {total / len(train_rows):.4f}   test accuracy {accuracy:.2%}")


if __name__ == "__main__":
    main()
