"""Language models: n-grams and neural ones, over words or subwords."""
