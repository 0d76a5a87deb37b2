"""A big model cut down to a small one's start; `trainer.inherit` is the program."""
