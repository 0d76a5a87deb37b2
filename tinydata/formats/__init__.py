"""How corpora lie on disk: one file per format; plan and read in base.py are the doors."""
