"""Hypothesis times neither examples nor their making: machines are noisy, and speed lives in `bench/`."""

from hypothesis import HealthCheck, settings

settings.register_profile("highrise", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("highrise")
