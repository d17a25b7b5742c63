"""Defaults of studies and searches, which the command line shows without importing torch."""

RATES = (0.0, 0.1, 0.3, 0.5, 0.7)
# Seeds of a study: enough for the interval of the change to exclude 0 where the effect is as large as with the digits.
SEEDS = 5
# Of a search: how many rates are tried, and the largest.
CANDIDATES = 30
LARGEST = 0.8
