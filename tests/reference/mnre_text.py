"""What configs/mnre.toml's student of text alone reaches in PyTorch, from the same start.

    pip install torch==2.15.0 transformers==5.23.0 safetensors==0.8.0 tokenizers
    python tests/reference/mnre_text.py PATH/TO/mnre RUN_FOLDER [SEED ...]

RUN_FOLDER is that of `mi2rage experiment configs/mnre.toml`: its `own-text` holds the vocabulary and
the pretrained encoder that both programs start from. The recipe is that of the config. It answers
whether a score below that of a linear model is this program's fault.
"""

import json
import pathlib
import random
import sys

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

import mnre

data, run = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
tokenizer = Tokenizer.from_file(str(run / "own-text/tokenizer.json"))
special = {name: tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]", "[MASK]", *mnre.MARKERS)}
splits, relations = mnre.read(data)


def pieces(token):
    return tokenizer.encode(token, add_special_tokens=False).ids


def bert():
    stored = load_file(str(run / "own-text/text-encoder.safetensors"))
    own = BertConfig(
        vocab_size=stored["bert.embeddings.word_embeddings.weight"].shape[0],
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        hidden_act="relu",
        max_position_embeddings=80,
        # `BertConfig`'s own, which the encoder was pretrained with.
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
    )
    model = BertModel(own, add_pooling_layer=False)
    state = model.state_dict()
    for name in state:
        theirs = "bert." + name.replace("attention.self.", "attention.self_attn.")
        theirs = theirs.replace("LayerNorm.weight", "layer_norm.gamma").replace("LayerNorm.bias", "layer_norm.beta")
        if theirs not in stored:
            continue
        value = stored[theirs]
        state[name] = value.T if value.ndim == 2 and "embeddings" not in name else value
    model.load_state_dict(state)
    return model


encoded = {name: [mnre.encode(row, special, pieces, relations) for row in rows] for name, rows in splits.items()}
hide = (0.1, max(special.values()) + 1, special["[MASK]"])
recipe = dict(updates=3000, evaluations=6, rate=1e-3, decay=0.05, hide=hide)
for seed in [int(seed) for seed in sys.argv[3:]] or [1]:
    random.seed(seed)
    torch.manual_seed(seed)
    model = mnre.Classifier(bert(), len(relations), dropout=0.2, activation=torch.relu)
    print(json.dumps({"seed": seed} | mnre.fit(model, encoded, **recipe)), flush=True)
