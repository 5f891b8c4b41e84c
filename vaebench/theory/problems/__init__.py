"""Problems with known answers: objective, gradient, Hessian, optimum and gradient noise in closed form."""

from vaebench.theory.problems import linear, linear_noise, poisson, regression

__all__ = ["linear", "linear_noise", "poisson", "regression"]
