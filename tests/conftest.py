from pipeline import telemetry

telemetry.turn_off()
