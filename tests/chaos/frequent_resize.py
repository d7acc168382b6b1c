"""`lwddpm`, but an elastic worker group looks for more room every few seconds instead of every minute."""

from lwddpm.cli import main
from lwddpm.cluster import train

train.RESIZE_EVERY_S = 5.0
main()
