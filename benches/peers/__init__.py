"""The programs that are measured: bascule's own, and the peers that it is compared with."""

from scripts.provision import MissingToolError as MissingToolError
from scripts.provision import require as require

from benches.peers._build import ROOT as ROOT
from benches.peers._build import go_peer as go_peer
from benches.peers._build import tonic_peer as tonic_peer
