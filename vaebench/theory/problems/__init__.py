"""Problems with known answers: the linear VAE and its gradient noise, Gaussian and Poisson regression."""
