"""How fast person search runs on a GPU, beside the literal model and what the GPU could do: ``make gpu``.

    python -m psarm.benchmarks.gpu --json benchmarks/results/gpu_h200.json --profile

Nothing but torch and what psarm itself imports is needed, no network and no checkpoint but the shipped one. What is
measured is written to the JSON at once, the most important first; what fails is a row with the reason, what does not
fit into ``--budget`` seconds is named. ``--tiny --device cpu`` runs all of it in seconds, for tests.
"""
