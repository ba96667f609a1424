"""Other libraries in the benchmark: a file each, which imports its library when a case is made for it."""

from fastdens.bench.cases import Peer
from fastdens.bench.peers.dpgmm import PEER as DPGMM
from fastdens.bench.peers.faiss import PEER as FAISS
from fastdens.bench.peers.flash_kmeans import PEER as FLASH_KMEANS
from fastdens.bench.peers.gmm_gpu import PEER as GMM_GPU
from fastdens.bench.peers.pomegranate import PEER as POMEGRANATE
from fastdens.bench.peers.pytorch_gmm import PEER as PYTORCH_GMM
from fastdens.bench.peers.pytorch_ood import PEER as PYTORCH_OOD
from fastdens.bench.peers.scikit_learn import PEER as SCIKIT_LEARN
from fastdens.bench.peers.tgmm import PEER as TGMM
from fastdens.bench.peers.torch_distributions import PEER as TORCH_DISTRIBUTIONS
from fastdens.bench.peers.torchgmm import PEER as TORCHGMM

PEERS: tuple[Peer, ...] = (
    SCIKIT_LEARN,
    GMM_GPU,
    TORCHGMM,
    TGMM,
    POMEGRANATE,
    PYTORCH_GMM,
    TORCH_DISTRIBUTIONS,
    DPGMM,
    FAISS,
    FLASH_KMEANS,
    PYTORCH_OOD,
)
