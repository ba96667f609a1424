"""Chains of split-merge moves without single-site updates, of the production move or of one with a wrong piece."""

from __future__ import annotations

import math
from enum import IntEnum
from functools import partialmethod
from types import FunctionType

import numba
import numpy as np
import pytest
import torch
from fastdens.kernels.counter_random import hashed_bits
from fastdens.kernels.cpu._random import stream_of
from fastdens.kernels.cpu.gibbs import split_merge
from fastdens.kernels.cpu.gibbs.concentration import resample_concentration
from fastdens.kernels.cpu.gibbs.distances import fit_distances
from fastdens.kernels.cpu.gibbs.kernel import slot_ranks, slots_of_labels
from fastdens.kernels.cpu.gibbs.refit import fit_cluster
from fastdens.kernels.cpu.gibbs.scan_order import scan_order
from fastdens.kernels.cpu.gibbs.single_site import refresh_weights
from fastdens.kernels.cpu.gibbs.statistics import Prior, load_points, new_clusters, new_scratch
from fastdens.kernels.gibbs.normalisers import log_normalisers
from fastdens.kernels.reference import split_merge as reference

from tests.kernels.gibbs.posterior import KAPPA0, NU0_OVER_D

# Not kept on disk: a copy of the production move has its name and place, and would be taken for it.
compiled = numba.njit(nogil=True, error_model="numpy")


class Fault(IntEnum):
    """What is wrong with a move."""

    PRODUCTION = 0
    NONE = 1  # the copy with replaceable pieces
    Q_LEFT_OUT = 2
    Q_TWICE = 3
    NO_WAY_BACK = 4  # merges without log q
    LAUNCH_SEES_LABELS = 5  # that of a merge begins at the present labels
    ALPHA_LEFT_OUT = 6


@compiled
def scan_with_fault(stream, base, i, j, a, b, order, label, columns, prior, least, sides):
    """The production scan, with log q as the fault has it; the fault follows the sides of the points."""
    fault = sides.side[len(label)]
    if fault == Fault.LAUNCH_SEES_LABELS and a != b:
        for s in (split_merge.FIRST, split_merge.SECOND):
            split_merge.empty_side(s, prior, sides)
            for p in order:
                if label[p] == (a if s == split_merge.FIRST else b):
                    sides.side[p] = s
                    split_merge.join_side(s, p, columns, prior, sides)
    if fault in (Fault.Q_LEFT_OUT, Fault.Q_TWICE, Fault.NO_WAY_BACK):
        least = -np.inf
    log_q = split_merge.scan(stream, base, i, j, a, b, order, label, columns, prior, least, sides)
    if fault == Fault.Q_LEFT_OUT or (fault == Fault.NO_WAY_BACK and a != b):
        return 0.0
    return 2 * log_q if fault == Fault.Q_TWICE else log_q


def with_pieces(function, **pieces):
    """A copy of a compiled function that calls other functions under the same names."""
    original = function.py_func
    return compiled(FunctionType(original.__code__, {**original.__globals__, **pieces}, original.__name__))


production_move = split_merge.split_or_merge
faulty_move = with_pieces(production_move, scan=scan_with_fault)


@compiled
def move_chains(points, prior, labels, alpha, keys, n_sweeps, n_moves, has_prior, fault, counted):
    """Moves in place of sweeps, as in ``sweep_chain``; labels [C, n] and alpha [C] become those at the end."""
    n_points = labels.shape[1]
    scratch = new_scratch(len(prior.scale))
    order, bits = np.empty(n_points, np.int64), np.empty(n_points, np.int64)
    bucket, rank = np.empty(n_points + 1, np.int64), np.empty(n_points + 2, np.int64)
    sides = split_merge.new_sides(n_points + 1, len(points.columns))
    sides.side[n_points] = fault
    for c in range(len(labels)):
        key, label = keys[c], labels[c]
        high = slots_of_labels(label.copy(), label)
        clusters = new_clusters(n_points + 2, *points.columns.shape)
        for k in range(high):
            fit_cluster(k, k, -1, label, points, prior, clusters, scratch)
            refresh_weights(k, prior, clusters)
            fit_distances(k, points, prior, clusters, scratch)
        for t in range(n_sweeps):
            scan_order(stream_of(key, 4 * t), n_points, bits, bucket, order)
            stream = stream_of(key, 4 * t + 3)
            log_alpha = 0.0 if fault == Fault.ALPHA_LEFT_OUT else math.log(alpha[c])
            for move in range(n_moves):
                state = (high, label, points, prior, clusters, sides, scratch, counted)
                if fault == Fault.PRODUCTION:
                    high = production_move(stream, move, order, log_alpha, *state)
                else:
                    high = faulty_move(stream, move, order, log_alpha, *state)
            if has_prior:
                n_clusters = slot_ranks(clusters.counts, high, rank)
                alpha[c] = resample_concentration(stream_of(key, 4 * t + 2), alpha[c], n_points, n_clusters, 1.0, 1.0)


def compiled_moves(data, labels, alpha, keys, *, n_sweeps, n_moves, has_prior=False, fault=Fault.PRODUCTION):
    """Labels [C, n] of one model after ``n_sweeps`` times ``n_moves`` moves, and the counts of proposals [4]."""
    n, d = data.points.shape
    nu0 = d - 1 + NU0_OVER_D
    norms = log_normalisers(n, d, KAPPA0, nu0)
    scale = data.prior_scale[0].numpy()
    prior = Prior(scale, float(np.log(scale).sum()), KAPPA0, nu0, norms.predictive.numpy(), norms.marginal.numpy())
    points = load_points(data.points.numpy(), 0, n, data.prior_mean[0].numpy(), prior)
    labels, alpha = labels.numpy().astype(np.int64), alpha[0].numpy().copy()
    counted = np.zeros(4, np.int32)
    move_chains(points, prior, labels, alpha, keys[0].numpy(), n_sweeps, n_moves, has_prior, int(fault), counted)
    return labels, counted


def reference_moves(data, labels, alpha, keys, *, n_sweeps, n_moves, fault=Fault.PRODUCTION):
    """As :func:`compiled_moves`, by the reference, with alpha kept."""
    n, d = data.points.shape
    centred, prior = data.points - data.prior_mean[0], (data.prior_scale[0], KAPPA0, d - 1 + NU0_OVER_D)
    counted = np.zeros(4, np.int32)
    done = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference._Move, "scan", partialmethod(reference_scan_with_fault, reference._Move.scan, fault))
        for own, concentration, key in zip(labels, alpha[0].tolist(), keys[0], strict=True):
            a = 1.0 if fault == Fault.ALPHA_LEFT_OUT else concentration
            for t in range(n_sweeps):
                order = torch.argsort(hashed_bits(key, 4 * t, torch.arange(n)) >> 13, stable=True).tolist()
                for move in range(n_moves):
                    own, counts = reference.split_or_merge(centred, own, order, a, prior, key, 4 * t + 3, move)
                    counted += np.array(counts, np.int32)
            done.append(own)
    return torch.stack(done).numpy(), counted


def reference_scan_with_fault(self, production, fault, first, second, others, goal):
    """As :func:`scan_with_fault`, of the reference."""
    if fault == Fault.LAUNCH_SEES_LABELS and goal is not None:
        both = first | second
        first[:], second[:] = both & goal, both & ~goal
    log_q = production(self, first, second, others, goal)
    if fault == Fault.Q_LEFT_OUT or (fault == Fault.NO_WAY_BACK and goal is not None):
        return 0.0
    return 2 * log_q if fault == Fault.Q_TWICE else log_q
