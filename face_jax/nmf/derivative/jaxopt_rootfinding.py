"""The one place that imports jaxopt: implicit derivatives of a root.

jaxopt is no longer maintained and says so in a warning at import, which is meant for us and not for users of this
package. Replacing it would be a change to this file: both functions are a few lines around `jax.jvp` and `jax.vjp`.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="JAXopt is no longer maintained", category=DeprecationWarning)
    # The generic way, its own conjugate gradients on the whole system: what tests and benchmarks compare with.
    from jaxopt.implicit_diff import custom_root as custom_root
    from jaxopt.implicit_diff import root_jvp as root_jvp
    from jaxopt.implicit_diff import root_vjp as root_vjp
    from jaxopt.linear_solve import solve_normal_cg as solve_normal_cg
