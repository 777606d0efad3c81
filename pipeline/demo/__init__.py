"""A trial of the whole on one machine: broker, pipeline and a scenario, compared with its promises."""
