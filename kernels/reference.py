"""The formulas in float64 and plain torch, written to be read.

Every fast path of the library is tested against this module. Nothing here is fast: each function loops over
models and says what the operation means. Notation as in Bishop, *Pattern Recognition and Machine Learning*
(2006), section 9.2, with scikit-learn's convention for Cholesky factors of precisions: ``precision = U U'`` with
``U`` upper triangular, so that the squared Mahalanobis distance is ``|(x - mu) U|^2``.
"""

from __future__ import annotations

import math

import torch
from fastdens.kernels._random import hashed_bits, uniform_of_bits
from torch import Tensor

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")


def gaussian_log_prob(
    points: Tensor, means: Tensor, precisions_cholesky: Tensor, *, covariance_type: str = "full"
) -> Tensor:
    """Log-density of each point under each of G Gaussians, float64 [N, G].

    ``log N(x | mu, (U U')^-1) = -D/2 log 2 pi + log det U - 1/2 |(x - mu) U|^2`` (Bishop 2006, eq. 2.43).
    """
    x, mu, u = points.double(), means.double(), precisions_cholesky.double()
    dim = x.shape[1]
    columns = []
    for g in range(mu.shape[0]):
        centred = x - mu[g]
        if covariance_type in ("full", "tied"):
            factor = u[g] if covariance_type == "full" else u
            y = centred @ factor
            log_det = factor.diagonal().log().sum()
        else:
            scale = u[g].expand(dim)
            y = centred * scale
            log_det = scale.log().sum()
        columns.append(-0.5 * dim * math.log(2 * math.pi) + log_det - 0.5 * y.square().sum(1))
    return torch.stack(columns, 1)


def mixture_log_prob(
    points: Tensor, weights: Tensor, means: Tensor, precisions_cholesky: Tensor, *, covariance_type: str = "full"
) -> Tensor:
    """Log-density of each point under each of M mixtures, float64 [N, M]: ``log sum_k pi_k N(x | k)``."""
    columns = []
    for m in range(means.shape[0]):
        components = gaussian_log_prob(points, means[m], precisions_cholesky[m], covariance_type=covariance_type)
        columns.append(torch.logsumexp(components + weights[m].double().log(), 1))
    return torch.stack(columns, 1)


def responsibilities(
    points: Tensor,
    ranges: Tensor,
    weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    *,
    covariance_type: str = "full",
    log_weights: bool = False,
) -> tuple[Tensor, Tensor]:
    """E step: ``r_nk = pi_k N(x_n | k) / sum_j pi_j N(x_n | j)`` (Bishop 2006, eq. 9.23) and its log normaliser.

    With ``log_weights`` the weights given are log pi, of pi that need not sum to one. Returns responsibilities [N, K]
    and log-densities [N]; rows outside every range are zero.
    """
    resp = points.new_zeros(points.shape[0], means.shape[1], dtype=torch.float64)
    log_prob_norm = points.new_zeros(points.shape[0], dtype=torch.float64)
    for m, (start, stop) in enumerate(ranges.tolist()):
        joint = gaussian_log_prob(points[start:stop], means[m], precisions_cholesky[m], covariance_type=covariance_type)
        joint = joint + (weights[m].double() if log_weights else weights[m].double().log())
        log_prob_norm[start:stop] = torch.logsumexp(joint, 1)
        resp[start:stop] = torch.exp(joint - log_prob_norm[start:stop, None])
    return resp, log_prob_norm


def student_t_log_prob(
    points: Tensor,
    offsets: Tensor,
    log_weights: Tensor,
    locations: Tensor,
    scale_precisions_cholesky: Tensor,
    degrees_of_freedom: Tensor,
    *,
    ranges: Tensor | None = None,
) -> Tensor:
    """Log-density under mixtures of Student-t distributions, float64 [N, M]; with row ranges [M, 2], [N].

    ``log t(x | mu, (U U')^-1, nu) = log Gamma((nu + D)/2) - log Gamma(nu/2) - D/2 log(nu pi) + log det U
    - (nu + D)/2 log(1 + |(x - mu) U|^2 / nu)`` (Kotz & Nadarajah 2004, eq. 1.1). Rows outside every range are zero, a
    model without components is NaN, and a component of log weight minus infinity adds nothing.
    """
    x, log_pi, mu = points.double(), log_weights.double(), locations.double()
    u, nu = scale_precisions_cholesky.double(), degrees_of_freedom.double()
    dim = x.shape[1]
    bounds = offsets.tolist()
    n_models = len(bounds) - 1
    out = x.new_zeros(x.shape[0], n_models if ranges is None else 1)
    for m, (start, stop) in enumerate([(0, len(x))] * n_models if ranges is None else ranges.tolist()):
        log_prob = x.new_full((stop - start,), -math.inf if bounds[m] < bounds[m + 1] else math.nan)
        for g in range(bounds[m], bounds[m + 1]):
            if log_pi[g] == -math.inf:
                continue
            form = ((x[start:stop] - mu[g]) @ u[g]).square().sum(1)
            log_norm = torch.lgamma((nu[g] + dim) / 2) - torch.lgamma(nu[g] / 2) - dim / 2 * (nu[g] * math.pi).log()
            log_t = log_norm + u[g].diagonal().log().sum() - (nu[g] + dim) / 2 * torch.log1p(form / nu[g])
            log_prob = torch.logaddexp(log_prob, log_pi[g] + log_t)
        out[start:stop, m if ranges is None else 0] = log_prob
    return out if ranges is None else out[:, 0]


def sufficient_statistics(
    points: Tensor, ranges: Tensor, resp: Tensor, centres: Tensor, *, covariance_type: str = "full"
) -> tuple[Tensor, Tensor, Tensor]:
    """M step: counts, means and scatter about those means (Bishop 2006, eqs. 9.24 to 9.27).

    ``nk = sum_n r_nk + 10 eps`` with the eps of the points' dtype, ``mean_k = c_k + sum_n r_nk (x_n - c_k) / nk``
    and ``S_k = sum_n r_nk (x_n - mean_k)(x_n - mean_k)'``. The centre c_k cancels unless the component has no
    points, whose mean then stays where it was. Scatter by covariance type: full [M, K, D, D], tied [M, D, D]
    (summed over k), diag [M, K, D], spherical [M, K] (summed over D).
    """
    eps = 10 * torch.finfo(points.dtype).eps
    counts, means, scatters = [], [], []
    for m, (start, stop) in enumerate(ranges.tolist()):
        x, r, centre = points[start:stop].double(), resp[start:stop].double(), centres[m].double()
        nk = r.sum(0) + eps
        mean = torch.stack([c + r[:, k] @ (x - c) / nk[k] for k, c in enumerate(centre)])
        scatter = torch.stack([(x - mu).T @ (r[:, k, None] * (x - mu)) for k, mu in enumerate(mean)])
        if covariance_type == "tied":
            scatter = scatter.sum(0)
        elif covariance_type != "full":
            scatter = scatter.diagonal(dim1=-2, dim2=-1)
            scatter = scatter.sum(-1) if covariance_type == "spherical" else scatter
        counts.append(nk)
        means.append(mean)
        scatters.append(scatter)
    return torch.stack(counts), torch.stack(means), torch.stack(scatters)


def precision_cholesky(covariances: Tensor, *, covariance_type: str = "full") -> tuple[Tensor, Tensor]:
    """Upper-triangular U with ``U U' = covariance^-1``, and a bool per model: True where there is none."""
    sigma = covariances.double()
    if covariance_type in ("diag", "spherical"):
        bad = ~(sigma > 0).flatten(1).all(1)
        return sigma.rsqrt(), bad
    lower, info = torch.linalg.cholesky_ex(sigma)
    bad = (info != 0).reshape(sigma.shape[0], -1).any(1) | ~torch.isfinite(sigma).flatten(1).all(1)
    identity = torch.eye(sigma.shape[-1], dtype=torch.float64, device=sigma.device).expand_as(sigma)
    return torch.linalg.solve_triangular(lower, identity, upper=False).mT.contiguous(), bad


def _gamma(key: Tensor, draw: int, counter: int, shape: float) -> float:
    """A gamma number of rate one (Marsaglia & Tsang 2000) from counters ``counter``, ``counter + 1``, ..."""

    def uniform(offset: int) -> float:
        return float(uniform_of_bits(hashed_bits(key, draw, torch.tensor(counter + offset, device=key.device))))

    d = (shape if shape >= 1 else shape + 1) - 1 / 3
    c = 1 / math.sqrt(9 * d)
    trial = 0
    while True:
        radius, angle = math.sqrt(-2 * math.log(uniform(trial))), 2 * math.pi * uniform(trial + 1)
        normal = radius * math.cos(angle)
        v = (1 + c * normal) ** 3
        if v > 0 and math.log(uniform(trial + 2)) < 0.5 * normal**2 + d - d * v + d * math.log(v):
            break
        trial += 3
    return d * v if shape >= 1 else d * v * uniform(1 << 31) ** (1 / shape)


def resample_concentration(
    key: Tensor, draw: int, alpha: float, n_points: int, n_clusters: int, shape: float, rate: float
) -> float:
    """A draw of alpha given its last value and the number of clusters (Escobar & West 1995, section 6).

    ``eta ~ Beta(alpha + 1, n)``, then a gamma number of rate ``b - log eta`` whose shape is ``a + K`` with odds
    ``(a + K - 1) / (n (b - log eta))``, else ``a + K - 1``.
    """
    first, second = _gamma(key, draw, 1 << 32, alpha + 1), _gamma(key, draw, 2 << 32, n_points)
    log_eta = math.log(first) - math.log(first + second)
    odds = (shape + n_clusters - 1) / (n_points * (rate - log_eta))
    u = float(uniform_of_bits(hashed_bits(key, draw, torch.tensor(0, device=key.device))))
    drawn = _gamma(key, draw, 3 << 32, shape + n_clusters - (0 if u < odds / (1 + odds) else 1))
    return max(drawn / (rate - log_eta), 1e-300)


def gibbs_turn(
    centred: Tensor,
    labels: Tensor,
    i: int,
    alpha: float,
    prior_scale: Tensor,
    kappa0: float,
    nu0: float,
    key: Tensor,
    sweep: int,
) -> Tensor:
    """Labels [n] after the turn of point i, everything worked out from the points [n, D] about the prior mean.

    Cluster k has weight ``n_k t_k(x_i)`` without the point, a new cluster ``alpha t_0(x_i)``. A new cluster takes the
    lowest free label; a point that was alone and founds a new cluster keeps its label.
    """
    x, dim = centred.double(), centred.shape[1]
    n_slots = int(labels.max()) + 1
    members = torch.nn.functional.one_hot(labels.long(), n_slots + 1).double()
    members[i] = 0
    n = members.sum(0)
    means = members.T @ x / n.clamp_min(1)[:, None]
    kappa, nu = kappa0 + n, nu0 + n
    scale = torch.stack([(r[:, None] * (x - mu)).T @ (x - mu) for r, mu in zip(members.T, means, strict=True)])
    pull = (kappa0 * n / kappa)[:, None, None] * means[:, :, None] * means[:, None, :]
    scale = torch.diag(prior_scale) + scale + pull
    location = (n / kappa)[:, None] * means
    df = nu - dim + 1
    # Student-t of df degrees of freedom and scale matrix S (kappa + 1) / (kappa df).
    lower = torch.linalg.cholesky(scale * ((kappa + 1) / (kappa * df))[:, None, None])
    y = torch.linalg.solve_triangular(lower, (x[i] - location)[..., None], upper=False)[..., 0]
    log_t = torch.lgamma((df + dim) / 2) - torch.lgamma(df / 2) - 0.5 * dim * (df * math.pi).log()
    log_t -= lower.diagonal(dim1=-2, dim2=-1).log().sum(1) + 0.5 * (df + dim) * torch.log1p(y.square().sum(1) / df)
    # The last of these clusters has no points: its predictive is that of the prior.
    log_weight = torch.cat([n[:-1].log(), torch.tensor([math.log(alpha)], device=x.device)]) + log_t
    weight = torch.exp(log_weight - log_weight.max())
    u = uniform_of_bits(hashed_bits(key, 4 * sweep + 1, torch.tensor(i, device=x.device)))
    new = int(torch.searchsorted(weight.cumsum(0), u * weight.sum(), right=True))
    out = labels.clone()
    if new == n_slots:
        used = torch.bincount(labels.long(), minlength=n_slots + 1)
        new = int(labels[i]) if used[labels[i]] == 1 else int((used == 0).nonzero()[0])
    out[i] = new
    return out


def log_joint(
    centred: Tensor,
    labels: Tensor,
    alpha: float,
    prior_scale: Tensor,
    kappa0: float,
    nu0: float,
    alpha_prior: tuple[float, float],
) -> float:
    """``log p(x, labels, alpha)`` of points [n, D] about the prior mean, or given alpha where the prior's shape is 0.

    ``p(labels | alpha) = alpha^K Gamma(alpha) / Gamma(alpha + n) prod_k Gamma(n_k)`` (Antoniak 1974); p(x | labels) is
    a product of marginal likelihoods of normal-inverse-Wishart models (Murphy 2007, eq. 266).
    """
    x, dim = centred.double(), centred.shape[1]
    shape, rate = alpha_prior
    half_nu0 = torch.tensor(nu0 / 2, dtype=torch.float64)
    total = math.lgamma(alpha) - math.lgamma(alpha + len(x))
    if shape > 0:
        total += shape * math.log(rate) - math.lgamma(shape) + (shape - 1) * math.log(alpha) - rate * alpha
    for label in labels.unique():
        own = x[labels == label]
        n, mean = len(own), own.mean(0)
        kappa, nu = kappa0 + n, nu0 + n
        scale = torch.diag(prior_scale) + (own - mean).T @ (own - mean) + kappa0 * n / kappa * torch.outer(mean, mean)
        total += math.log(alpha) + math.lgamma(n)
        total += float(torch.special.multigammaln(half_nu0 + n / 2, dim) - torch.special.multigammaln(half_nu0, dim))
        total += 0.5 * nu0 * float(prior_scale.log().sum()) - 0.5 * nu * float(torch.logdet(scale))
        total += 0.5 * dim * (math.log(kappa0 / kappa) - n * math.log(math.pi))
    return total


def gibbs_sweep(
    points: Tensor,
    ranges: Tensor,
    labels: Tensor,
    alpha: Tensor,
    keys: Tensor,
    prior_mean: Tensor,
    prior_scale: Tensor,
    kappa0: float,
    nu0: float,
    alpha_prior: tuple[float, float],
    first_sweep: int,
    n_sweeps: int,
    thin: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Collapsed Gibbs sweeps (Neal 2000, algorithm 3), one turn after the other.

    Returns labels after every ``thin``-th sweep, and of every sweep alpha, number of clusters and log-joint. A
    shape of zero in ``alpha_prior`` keeps alpha.
    """
    n_models, n_chains = alpha.shape
    kept = torch.zeros(n_sweeps // thin, n_chains, len(points), dtype=torch.int32, device=points.device)
    alphas, joints = alpha.new_empty(2, n_models, n_chains, n_sweeps)
    n_clusters = torch.empty(n_models, n_chains, n_sweeps, dtype=torch.int32, device=points.device)
    for m, (start, stop) in enumerate(ranges.tolist()):
        centred = points[start:stop].double() - prior_mean[m]
        position = torch.arange(stop - start, device=points.device)
        for c in range(n_chains):
            own = labels[c, start:stop].unique(return_inverse=True)[1]
            concentration = float(alpha[m, c])
            for t in range(n_sweeps):
                draw = 4 * (first_sweep + t)
                order = torch.argsort(hashed_bits(keys[m, c], draw, position) >> 13, stable=True)
                for i in order.tolist():
                    own = gibbs_turn(
                        centred, own, i, concentration, prior_scale[m], kappa0, nu0, keys[m, c], first_sweep + t
                    )
                n_clusters[m, c, t] = len(own.unique())
                if alpha_prior[0] > 0:
                    concentration = resample_concentration(
                        keys[m, c], draw + 2, concentration, len(own), int(n_clusters[m, c, t]), *alpha_prior
                    )
                alphas[m, c, t] = concentration
                joints[m, c, t] = log_joint(centred, own, concentration, prior_scale[m], kappa0, nu0, alpha_prior)
                if (t + 1) % thin == 0:
                    kept[(t + 1) // thin - 1, c, start:stop] = own.unique(return_inverse=True)[1].int()
    return kept, alphas, n_clusters, joints
