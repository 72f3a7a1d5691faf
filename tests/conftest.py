"""What all tests share."""

import os

# Tests must pass without a model hub; asking one would only cost time-outs.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
