"""Initializes the prototype bank from sentences, for runs too short to train it from random prototypes."""

import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from prior_fast.config import RunConfig
from prior_fast.data.loader import evaluation_batches
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.model.prior import PRIORModel
from prior_fast.training.distributed import Ranks
from prior_fast.training.finite import NotFinite

SENTENCES_PER_PROTOTYPE = 32
ITERATIONS = 20


@torch.no_grad()
def fill_bank(model: PRIORModel, dataset: PreparedDataset, config: RunConfig, ranks: Ranks, steps: int = 0) -> None:
    """Set the prototypes to the mean directions of clusters of the training sentences (spherical k-means).

    The bank is read by inner products: of two prototypes in the same direction the longer one always wins. All
    prototypes therefore get the mean length of the sentences. With fewer sentences than prototypes, the last prototypes
    do not change.

    steps: steps of the run so far, for the error.

    Raises:
        NotFinite: embeddings are not finite.
    """
    model.eval()
    prototypes = config.model.bank.prototypes
    wanted, found, sentences = prototypes * SENTENCES_PER_PROTOTYPE, 0, []
    for batch in evaluation_batches(dataset, config.batch_size, config.data.max_tokens):
        sentences.append(model.encode_sentences(batch.to(ranks.device)).float().cpu())
        found += len(sentences[-1])
        if found >= wanted:
            break
    model.train()
    rows = torch.cat(sentences)
    if not bool(rows.isfinite().all()):
        raise NotFinite("stage 2, before step 1: embeddings of sentences are not finite", steps)
    centers = torch.from_numpy(_cluster_directions(rows.numpy(), prototypes, config.seed))
    weight = model.sentence_bank.embed.weight.detach().clone()
    weight[: len(centers)] = centers.to(weight)
    if ranks.group is not None:
        torch.distributed.broadcast(weight, 0, group=ranks.group)
    model.sentence_bank.set_prototypes(weight)


def _cluster_directions(rows: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Rows [N, D] -> directions [K, D], each with the mean length of the rows; K is `clusters`, at most the different
    directions of the rows."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units = rows / np.maximum(lengths, np.finfo(rows.dtype).tiny)
    count = min(clusters, len(np.unique(units, axis=0)))
    # One thread: several add in any order, and a resumed run must find the same prototypes.
    with threadpool_limits(1):
        means = KMeans(count, n_init=1, max_iter=ITERATIONS, random_state=seed).fit(units)
    centers = means.cluster_centers_
    return centers / np.linalg.norm(centers, axis=1, keepdims=True) * lengths.mean()
