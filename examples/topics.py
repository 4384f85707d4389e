"""A topic model of word counts: what thousands of short documents are about, read off a sparse matrix.

    python examples/topics.py [--documents 11314]

The counts have the form of the 20 newsgroups (11,314 documents, about 1 % of the entries above 0), and are drawn from
topics whose words can be read, so that everybody sees whether they were found. Kullback and Leibler's divergence is
the likelihood of counts; the matrix is never made dense. About half a minute on two cores.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import scipy.sparse

from face_jax.sklearn import NMF

TOPICS = {
    "space": "orbit launch moon shuttle satellite rocket mission lunar astronaut telescope planet solar",
    "hockey": "goal puck playoff goalie season league penalty coach score stick rink overtime",
    "medicine": "patient disease doctor treatment symptom infection dose vaccine clinical diagnosis therapy blood",
    "cryptography": "key encryption cipher secret privacy decrypt protocol wiretap algorithm security chip escrow",
    "cars": "engine brake clutch mileage tire dealer transmission wheel driver exhaust sedan gearbox",
    "graphics": "image pixel polygon render colour format screen shader texture animation vector bitmap",
    "politics": "vote senate election law president congress tax reform party policy campaign debate",
    "religion": "faith church scripture prayer belief gospel sin heaven priest soul grace worship",
}
RARE = 3000  # words that no topic is about
Counts = scipy.sparse.csr_array


def documents(count: int, seed: int = 0) -> tuple[Counts, list[str], np.ndarray]:
    """Word counts of documents, the words, and each document's main topic."""
    drawn = np.random.default_rng(seed)
    words = [word for text in TOPICS.values() for word in text.split()] + [f"word{number}" for number in range(RARE)]
    common = 1 / np.arange(10, 10 + RARE)
    chances = np.zeros((len(TOPICS), len(words)))
    for number, text in enumerate(TOPICS.values()):
        mine = text.split()
        begin = number * len(mine)
        chances[number, begin : begin + len(mine)] = 1 / np.arange(3, 3 + len(mine))
        chances[number, -RARE:] = common
    chances /= chances.sum(axis=1, keepdims=True)
    shares = drawn.dirichlet(np.full(len(TOPICS), 0.05), count)
    lengths = np.maximum(8, drawn.lognormal(np.log(40), 0.6, count)).astype(int)
    rows = [
        scipy.sparse.csr_array(drawn.multinomial(length, share @ chances))
        for length, share in zip(lengths, shares, strict=True)
    ]
    return scipy.sparse.vstack(rows).tocsr().astype(np.float32), words, shares.argmax(axis=1)


def main() -> None:
    """Find the topics, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=11314)
    counts, words, about = documents(parser.parse_args().documents)
    filled = counts.nnz / (counts.shape[0] * counts.shape[1])
    print(f"{counts.shape[0]:,} documents × {counts.shape[1]:,} words, {filled:.1%} of the entries above 0")
    begin = time.perf_counter()
    model = NMF(len(TOPICS), beta_loss="kullback-leibler", random_state=0, tol=1e-3, max_iter=60)
    codes = model.fit_transform(counts)
    print(f"{len(TOPICS)} topics in {time.perf_counter() - begin:.0f} s. Each one's most frequent words:\n")
    # How much of a document each topic is: its codes times the length of the topic.
    strength = codes * model.components_.sum(axis=1)
    main_topic = strength.argmax(axis=1)
    names = list(TOPICS)
    for number, topic in enumerate(model.components_):
        top = [words[word] for word in np.argsort(-topic)[:6]]
        mine = np.bincount(about[main_topic == number], minlength=len(names))
        print(f"  {', '.join(top):70s} ({names[mine.argmax()]}: {mine.max() / max(1, mine.sum()):.0%})")
    # The share of documents whose strongest topic is the one that they were mostly drawn from.
    table = np.stack([np.bincount(about[main_topic == number], minlength=len(names)) for number in range(len(names))])
    print(f"\nDocuments filed under the topic that they were drawn from: {table.max(axis=1).sum() / len(about):.0%}")


if __name__ == "__main__":
    main()
