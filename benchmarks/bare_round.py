"""A round of split-MNIST as a throwaway loop would train it: the same models on two encrypted sockets, no more.

No checks, no numbering, no recovery, no hooks, no progress; a gradient leaves the moment autograd has it. What this
loop takes more than the floor is what a message each way costs on this machine; what real parties take more than this
loop is what heterofed costs.
"""

from __future__ import annotations

import time
from multiprocessing.connection import Connection

import torch
import zmq

from benchmarks.bare_loop import HEADER_BYTES, STUCK_MS, gradient_sender
from benchmarks.split_mnist import Setup, feature_model, shuffled_ids
from demos.mnist_split.data import column_slice
from demos.mnist_split.models import (
    InferModule,
    collaborator_feature_optimizer,
    host_feature_optimizer,
    infer_optimizer,
    loss_of,
)
from demos.mnist_split.options import rows_of
from psi.bench_processes import hear, say


def host_a_bare_round(pipe: Connection, setup: Setup, public: str, secret: str) -> None:
    """The host of the loop: the work of a worker. Says how long each pass took."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    digits = setup.digits()
    images, labels = column_slice(digits.train_images, 0, 2).contiguous(), digits.train_labels
    batches = shuffled_ids(setup, digits)
    feature, infer = feature_model(setup.width, 0).train(), InferModule(2 * setup.width).train()
    optimizers = [infer_optimizer(infer.parameters()), host_feature_optimizer(feature.parameters())]
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        router.rcvtimeo = STUCK_MS
        router.curve_server = True
        router.curve_publickey, router.curve_secretkey = public.encode(), secret.encode()
        port = router.bind_to_random_port("tcp://127.0.0.1")
        say(pipe, endpoint=f"tcp://127.0.0.1:{port}")
        router.recv_multipart()  # the collaborator is there
        say(pipe, ready=True)
        while hear(pipe):
            began = time.perf_counter()
            for ids in batches:
                rows = rows_of(ids, digits)
                inputs, truth = images[rows], labels[rows]
                own = feature(inputs)
                peer, _, data = router.recv_multipart(copy=False)
                leaf = torch.frombuffer(data.buffer, dtype=torch.float32).view(len(ids), setup.width)
                leaf.requires_grad_().register_post_accumulate_grad_hook(gradient_sender(router, peer.bytes))
                for each in optimizers:
                    each.zero_grad()
                torch.autograd.backward(loss_of(infer(torch.cat([own, leaf], dim=1)), truth))
                for each in optimizers:
                    each.step()
            say(pipe, seconds=time.perf_counter() - began)


def collaborate_in_a_bare_round(pipe: Connection, setup: Setup, endpoint: str, public: str) -> None:
    """The collaborator of the loop: the work of a worker."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    digits = setup.digits()
    images = column_slice(digits.train_images, 1, 2).contiguous()
    batches = shuffled_ids(setup, digits)
    feature = feature_model(setup.width, 1).train()
    optimizer = collaborator_feature_optimizer(feature.parameters())
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.rcvtimeo = STUCK_MS
        dealer.curve_serverkey = public.encode()
        dealer.curve_publickey, dealer.curve_secretkey = zmq.curve_keypair()
        dealer.connect(endpoint)
        dealer.send(b"here")
        while hear(pipe):
            inputs = images[rows_of(batches[0], digits)]
            for number, ids in enumerate(batches):
                embedding = feature(inputs)
                dealer.send_multipart([bytes(HEADER_BYTES), embedding.detach().numpy().data])
                if number + 1 < len(batches):
                    inputs = images[rows_of(batches[number + 1], digits)]  # while the gradient is on its way
                _, data = dealer.recv_multipart(copy=False)
                gradient = torch.frombuffer(data.buffer, dtype=torch.float32).view(len(ids), setup.width)
                optimizer.zero_grad()
                torch.autograd.backward(embedding, gradient)
                optimizer.step()
