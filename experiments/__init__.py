"""The programs that reproduce the papers; each runs as `python -m experiments.NAME --help`.

    cifar_vq            codebook models of color images: Gumbel-Softmax, VIMCO, the VQ-VAE's rules
    code_prior          a learned prior over the codes of a finished `cifar_vq` run
    binary_vae          binary latents under directed and Boltzmann priors, by any estimator
    dvaepp              DVAE++: global discrete latents over a hierarchy of local ones
    joint_vae           JointVAE: continuous and discrete latents together
    gradient_variance   bias and variance of every estimator against the exact gradient
    vq_compress         k-means compression of an image
    plot_relaxations    figures of the relaxations
    report              comparison of `cifar_vq` runs
    table1, table2, table3, disarm_table, joint_table, compare_samplers    finished runs in tables
    reproduce           the published cells that have no result yet, one after the other
    export, encode      the model of a finished run, and the codes of a data set
    preset_table, flag_tables    every preset with its result, and every flag, for the docs

A package is read in this order: `config` (every setting, with its default), `objectives` or `model`
(the equations), `task` (what is trained: data, initial state, loss), `evaluation`, `report` (what a
run leaves behind), `__main__` (how they are put together). `common` has what all programs share,
`boltzmann` the prior of two of them.
"""

import sys

if sys.argv[:1] == ["-m"]:  # Python is looking for the program; nobody else imports us so early
    from experiments.common import begin

    begin.importing()
