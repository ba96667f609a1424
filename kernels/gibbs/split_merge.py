"""Split-merge moves: two clusters become one, or one two, with all their points at once (Jain & Neal 2004).

Two points are drawn, the anchors, without regard to the labels: any point, and with equal odds any other or the
nearest of eight in the metric of the prior scale; near points make merges of clusters that overlap. If both are in one
cluster, a split of it is proposed, else the merge of theirs. In either case a launch state is made of the points of the
cluster or of both, from the anchors and random numbers alone: each anchor opens a side, and the others join the sides
one after the other, in the order of the last sweep, with probabilities proportional to ``n t(x)``, counts and densities
of the sides so far (sequential allocation, Dahl 2005). A split is one restricted Gibbs scan from there, of
log-probability log q; a merge's way back is the scan from there that ends on the present labels. With the joints of the
two states,

``log A(split) = log p(two) - log p(one) - log q``,  ``log A(merge) = log p(one) - log p(two) + log q``.

A point whose own side cannot be weighed precisely without it stays there in the scan, in both directions. The move
leaves the posterior unchanged for every choice of anchors, order and launch state, since none of them depends on how
the labels divide the points concerned.

References
----------
Jain & Neal, A split-merge Markov chain Monte Carlo procedure for the Dirichlet process mixture model, JCGS 13, 2004.
Dahl, Sequentially-allocated merge-split sampler for conjugate and nonconjugate Dirichlet process mixture models, 2005.
Wang & Russell, A smart-dumb/dumb-smart algorithm for efficient split-merge MCMC, UAI 2015.
"""

from __future__ import annotations

# Candidates for the second anchor.
CANDIDATES = 8

# Counters of a move's random numbers: the first anchor, CANDIDATES, then these, and those of each point.
NEARBY = 9
ACCEPTANCE = 10
ALLOCATION = 1 << 32
SCAN = 2 << 32
MOVE = 4 << 32
