"""Looks at trained models: principal components of codebooks, codes, figures and tables.

NumPy arrays in, matplotlib figures and strings out; nothing here needs a display.

    figure = figures.explained_variance({"gs_soft": codebooks})
    figures.save(figure, "explained_variance.png")
    print(tables.markdown(("estimator", "bits/dim"), rows))
"""

from dvae.analysis import codes, figures, pca, tables

__all__ = ["codes", "figures", "pca", "tables"]
