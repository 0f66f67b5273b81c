"""OIM against the update and the loss written sample by sample."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from psarm.model.oim import BACKGROUND, OnlineInstanceMatching

DIM, IDENTITIES, QUEUE = 6, 5, 4


def unit(count, seed):
    values = torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(values, dim=1)


def make(momentum=0.5, queue=QUEUE):
    oim = OnlineInstanceMatching(DIM, IDENTITIES, queue, momentum, 30.0).double()
    oim.lut.copy_(unit(IDENTITIES, 1))
    oim.cq.copy_(unit(queue, 2))
    return oim.train()


def literal_update(lut, cq, header, embeddings, labels, momentum):
    lut, cq = lut.clone(), cq.clone()
    for x, y in zip(embeddings.detach(), labels.tolist(), strict=True):
        if y >= 0:
            lut[y] = momentum * lut[y] + (1 - momentum) * x
            lut[y] = lut[y] / lut[y].norm()
        elif y == -1 and len(cq):
            cq[header] = x
            header += 1
            if header == len(cq):
                header = 0
    return lut, cq, header


def literal_loss(lut, cq, embeddings, labels):
    total, count = embeddings.sum() * 0, 0
    for x, y in zip(embeddings, labels.tolist(), strict=True):
        if y >= 0:
            logits = 30 * torch.stack([x @ row for row in [*lut, *cq]])
            total = total + torch.logsumexp(logits, 0) - logits[y]
            count += 1
    return total / count if count else total


CASES = {
    "mixed": [0, -1, 3, -2, 4, -1],
    "repeated identities": [2, 0, 2, -1, 2, 0, 1],
    "more unlabelled than the queue": [-1] * 7 + [3] + [-1] * 3,
    "a full queue": [-1] * 4,
    "only background": [-2, -2],
    "only unlabelled": [-1, -1, -1],
    "only labelled": [1, 4],
    "nothing": [],
}


@pytest.mark.parametrize("labels", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("momentum", [0.5, 0.1])
@pytest.mark.parametrize("header", [0, 3])
def test_equals_the_literal_code(labels, momentum, header):
    oim, labels = make(momentum), torch.tensor(labels, dtype=torch.int64)
    oim.header.fill_(header)
    for step in range(3):  # the queue's header goes on where it was
        embeddings = unit(len(labels), 10 + step).requires_grad_()
        lut, cq, position = oim.lut.clone(), oim.cq.clone(), int(oim.header)
        loss = oim(embeddings, labels)
        expected = literal_loss(lut, cq, embeddings, labels)  # from the tables before the update
        torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)
        [ours] = torch.autograd.grad(loss, embeddings)
        [theirs] = torch.autograd.grad(expected, embeddings)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
        lut, cq, position = literal_update(lut, cq, position, embeddings, labels, momentum)
        torch.testing.assert_close(oim.lut, lut, rtol=0, atol=1e-12)
        assert torch.equal(oim.cq, cq)
        assert int(oim.header) == position


@pytest.mark.parametrize("labels", [[], [-1, -2], [-2]])
def test_without_a_labelled_sample_the_loss_is_zero(labels):
    embeddings = unit(len(labels), 3).requires_grad_()
    loss = make()(embeddings, torch.tensor(labels, dtype=torch.int64))
    assert loss == 0
    loss.backward()
    assert (embeddings.grad == 0).all()


@pytest.mark.parametrize("seed", range(12))
def test_random_batches_equal_the_literal_code(seed):
    """Many samples of few people, so that most come up again and again and the queue wraps; header and tables go on."""
    generator = torch.Generator().manual_seed(seed)
    oim = make(momentum=float(torch.rand((), generator=generator)))
    lut, cq, position = oim.lut.clone(), oim.cq.clone(), 0
    for step in range(4):
        count = int(torch.randint(0, 40, (), generator=generator))
        labels = torch.randint(-2, 1 + int(torch.randint(0, IDENTITIES, (), generator=generator)), (count,))
        embeddings = unit(count, 100 * seed + step).requires_grad_()
        loss, expected = oim(embeddings, labels), literal_loss(lut, cq, embeddings, labels)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
        [ours], [theirs] = (torch.autograd.grad(value, embeddings) for value in (loss, expected))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
        lut, cq, position = literal_update(lut, cq, position, embeddings, labels, oim.momentum)
        assert torch.equal(oim.lut, lut)
        assert torch.equal(oim.cq, cq)
        assert int(oim.header) == position


@pytest.mark.parametrize("labels", [[0, -1, 3, 3, -2], [-1, -2], []])
def test_gradient_by_finite_differences(labels):
    oim = make().eval()  # the tables stand still
    oim.scalar = 3.0
    embeddings = unit(len(labels), 11).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: oim(x, torch.tensor(labels, dtype=torch.int64)), embeddings)


def test_nothing_as_large_as_the_tables_is_kept_or_copied():
    """100,000 identities: what waits for the backward pass is of the samples' size, and no tensor is of the tables'."""
    identities, dim = 100_000, 32
    oim = OnlineInstanceMatching(dim, identities, 500, 0.5, 30.0).train()
    oim.lut.normal_(std=dim**-0.5)
    embeddings = torch.nn.functional.normalize(torch.randn(6, dim), dim=1).requires_grad_()
    labels = torch.tensor([5, 99_999, -1, 5, -2, 7])
    kept, made = [], []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            result = function(*arguments, **(options or {}))
            if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in tables:
                made.append(result.untyped_storage().nbytes())
            return result

    tables = {table.untyped_storage().data_ptr() for table in oim.buffers()}
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x), Sizes():
        oim(embeddings, labels).backward()
    assert max(kept) <= embeddings.numel()
    logits = 4 * 4 * (identities + 500)
    assert max(made) == logits < oim.lut.numel() * 4
    assert made.count(logits) < 30  # views and results in place of that one tensor
    assert embeddings.grad[4].eq(0).all() and embeddings.grad[0].ne(0).any()


def test_loss_and_tables_do_not_depend_on_autocast():
    embeddings, labels = unit(5, 12).float(), torch.tensor([0, -1, 2, 2, -2])
    plain, cast = make().float(), make().float()
    expected = plain(embeddings, labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cast(embeddings, labels), expected)
    assert all(torch.equal(one, other) for one, other in zip(plain.buffers(), cast.buffers(), strict=True))


def test_background_changes_nothing():
    with_background, without = make(), make()
    embeddings, labels = unit(6, 4), torch.tensor([0, BACKGROUND, -1, BACKGROUND, 2, BACKGROUND])
    keep = labels != BACKGROUND
    assert with_background(embeddings, labels) == without(embeddings[keep], labels[keep])
    for one, other in zip(with_background.buffers(), without.buffers(), strict=True):
        assert torch.equal(one, other)


def test_the_tables_get_no_gradient_and_stand_still_in_eval_mode():
    oim = make().eval()
    before = [value.clone() for value in oim.buffers()]
    embeddings = unit(3, 5).requires_grad_()
    oim(embeddings, torch.tensor([0, 1, -1])).backward()
    assert all(torch.equal(one, other) for one, other in zip(before, oim.buffers(), strict=True))
    assert not any(value.requires_grad for value in oim.buffers())


def test_backward_after_the_update_is_the_gradient_of_the_old_tables():
    oim = make()
    lut, cq = oim.lut.clone(), oim.cq.clone()
    embeddings = unit(4, 6).requires_grad_()
    labels = torch.tensor([0, 0, -1, 3])
    loss = oim(embeddings, labels)
    oim(unit(4, 7), labels)  # the tables move again before backward
    loss.backward()
    [expected] = torch.autograd.grad(literal_loss(lut, cq, embeddings, labels), embeddings)
    torch.testing.assert_close(embeddings.grad, expected, rtol=0, atol=1e-12)


def test_no_queue():
    oim = make(queue=0)
    lut, cq = oim.lut.clone(), oim.cq.clone()
    embeddings, labels = unit(3, 8), torch.tensor([1, -1, 2])
    torch.testing.assert_close(oim(embeddings, labels), literal_loss(lut, cq, embeddings, labels))
    assert int(oim.header) == 0


def test_half_precision_embeddings_leave_the_tables_in_their_own_precision():
    oim = make().float()
    loss = oim(unit(3, 9).bfloat16(), torch.tensor([0, -1, 2]))
    assert torch.isfinite(loss)
    assert oim.lut.dtype == oim.cq.dtype == torch.float32


def test_a_state_dict_holds_tables_and_header():
    oim = make()
    oim(unit(3, 9), torch.tensor([-1, -1, 2]))
    other = make()
    other.load_state_dict(oim.state_dict())
    assert int(other.header) == 2
    assert torch.equal(other.cq, oim.cq)
