"""A small library of cells for tests: tables that can be summed by hand, in any units."""

from __future__ import annotations

#: Volts, and per cell: input capacitance (pF); energy to 1 and to 0 (pJ); leakage (nW).
VOLTAGE_V = 2.0
CAP_PF = 0.010
RISE_PJ, FALL_PJ = 0.030, 0.050
CLOCK_RISE_PJ, CLOCK_FALL_PJ = 0.004, 0.006
INPUT_RISE_PJ, INPUT_FALL_PJ = 0.001, 0.002
LEAKAGE_NW, LEAKAGE_HIGH_NW = 3.0, 5.0
DELAY_NS, DELAY_NS_PER_PF, SLEW_NS = 0.10, 2.0, 0.05
SETUP_NS = 0.07


def library(
    *, time: tuple[str, float] = ("1ns", 1.0), cap: tuple[str, float] = ("1,pf", 1.0), name="hand"
) -> str:
    """Liberty text; ``time`` and ``cap`` are the unit's spelling and how many make ns or pF."""
    t, c = time[1], cap[1]
    energy = c  # the unit of energy is that of capacitance times volts squared

    def constant(kind: str, template: str, value: float, unit: float, slope: float = 0.0) -> str:
        low, high = (value * unit, (value + slope * 0.1) * unit)
        if template in ("both", "energy"):
            rows = f'values ("{low}, {high}", "{low}, {high}");'
        else:
            rows = f'values ("{low}, {low}");'
        return f"{kind} ({template}) {{ {rows} }}"

    def arc(pin: str, kind: str = "combinational", sense: str = "negative_unate") -> str:
        tables = " ".join(
            constant(f"cell_{edge}", "both", DELAY_NS, t, DELAY_NS_PER_PF)
            + " "
            + constant(f"{edge}_transition", "both", SLEW_NS, t)
            for edge in ("rise", "fall")
        )
        return (
            f'timing () {{ related_pin : "{pin}"; timing_type : {kind}; '
            f"timing_sense : {sense}; {tables} }}"
        )

    def power(related: str = "", rise: float = RISE_PJ, fall: float = FALL_PJ, when="") -> str:
        template = "energy" if related else "slew"
        head = f'related_pin : "{related}"; ' if related else ""
        head += f'when : "{when}"; ' if when else ""
        tables = [
            constant(f"{edge}_power", template, value, energy)
            for edge, value in (("rise", rise), ("fall", fall))
        ]
        return f"internal_power () {{ {head}{' '.join(tables)} }}"

    def pin(name: str, more: str = "", cap: float = CAP_PF) -> str:
        return f"pin ({name}) {{ direction : input; capacitance : {cap * c}; {more} }}"

    def output(name: str, function: str, *parts: str) -> str:
        return (
            f"pin ({name}) {{ direction : output; max_capacitance : {1.0 * c}; "
            f'function : "{function}"; {" ".join(parts)} }}'
        )

    def cell(name: str, area: float, *parts: str) -> str:
        head = f"area : {area}; cell_leakage_power : {LEAKAGE_NW};"
        return f"cell ({name}) {{ {head} {' '.join(parts)} }}"

    def gate(
        name: str, area: float, function: str, pins: str, sense: str = "negative_unate"
    ) -> str:
        arcs = [part for p in pins for part in (arc(p, sense=sense), power(p))]
        return cell(name, area, *map(pin, pins), output("Z", function, *arcs))

    clock = pin("P", f"clock : true; {power(rise=CLOCK_RISE_PJ, fall=CLOCK_FALL_PJ)}")
    setup = " ".join(
        f'timing () {{ related_pin : "P"; timing_type : {kind}_rising; '
        + " ".join(
            constant(f"{edge}_constraint", "limit", SETUP_NS if kind == "setup" else 0, t)
            for edge in ("rise", "fall")
        )
        + " }"
        for kind in ("setup", "hold")
    )
    data = pin("X", power(rise=INPUT_RISE_PJ, fall=INPUT_FALL_PJ) + setup)
    held = output("Z", "S", arc("P", "rising_edge", "non_unate"), power("P"))
    flop = f'ff (S, SN) {{ next_state : "X"; clocked_on : "P"; }} {clock} {data} {held}'
    scan = (
        'ff (S, SN) { next_state : "(X & !E) | (T & E)"; clocked_on : "P"; } '
        f"{clock} {data} {pin('E')} {pin('T')} {held}"
    )
    several = (
        'ff_bank (S, SN, 2) { next_state : "X"; clocked_on : "P"; } '
        f"{clock} bundle (X) {{ members (X0, X1); direction : input; "
        f"capacitance : {CAP_PF * c}; }} "
        'bundle (Z) { members (Z0, Z1); direction : output; function : "S"; }'
    )
    stop = (
        "clock_gating_integrated_cell : latch_posedge; "
        'statetable ("P E", "M") { table : "L L : - : L, L H : - : H, H - : - : N"; } '
        + pin("P", f"clock : true; clock_gate_clock_pin : true; {power(rise=0.010, fall=0.020)}")
        + pin("E", f"clock_gate_enable_pin : true; {setup}")
        + "pin (M) { direction : internal; internal_node : M; }"
        + "pin (Z) { direction : output; clock_gate_out_pin : true; "
        + f'state_function : "P*M"; {arc("P", sense="positive_unate")} {power("P")} }}'
    )
    high = f'leakage_power () {{ when : "A"; value : {LEAKAGE_HIGH_NW}; }}'
    inverter = cell("TURN", 2.0, high, pin("A"), output("Z", "!A", arc("A"), power("A")))
    limit = " ".join(
        f'variable_{at} : {name}; index_{at} ("{0.01 * t}, {1.0 * t}");'
        for at, name in ((1, "related_pin_transition"),)
    )
    return "\n".join(
        [
            f'library ({name}) {{ time_unit : "{time[0]}"; voltage_unit : "1V";',
            f'capacitive_load_unit ({cap[0]}); leakage_power_unit : "1nW"; current_unit : "1mA";',
            'pulling_resistance_unit : "1kohm"; delay_model : table_lookup;',
            f"nom_voltage : {VOLTAGE_V}; nom_temperature : 25; nom_process : 1;",
            "slew_lower_threshold_pct_rise : 20; slew_upper_threshold_pct_rise : 80;",
            "slew_lower_threshold_pct_fall : 20; slew_upper_threshold_pct_fall : 80;",
            "input_threshold_pct_rise : 50; input_threshold_pct_fall : 50;",
            "output_threshold_pct_rise : 50; output_threshold_pct_fall : 50;",
            "lu_table_template (both) { variable_1 : input_net_transition; "
            "variable_2 : total_output_net_capacitance; "
            f'index_1 ("{0.01 * t}, {1.0 * t}"); index_2 ("0, {0.1 * c}"); }}',
            "power_lut_template (energy) { variable_1 : input_transition_time; "
            "variable_2 : total_output_net_capacitance; "
            f'index_1 ("{0.01 * t}, {1.0 * t}"); index_2 ("0, {0.1 * c}"); }}',
            "power_lut_template (slew) { variable_1 : input_transition_time; "
            f'index_1 ("{0.01 * t}, {1.0 * t}"); }}',
            f"lu_table_template (limit) {{ {limit} }}",
            inverter,
            gate("PASS", 3.0, "A", "A", "positive_unate"),
            gate("NOTBOTH", 4.0, "!(A & B)", "AB"),
            gate("NEITHER", 4.0, "!(A | B)", "AB"),
            gate("BOTH", 5.0, "A & B", "AB", "positive_unate"),
            gate("DIFFER", 9.0, "A ^ B", "AB", "non_unate"),
            cell("KEEP", 20.0, flop),
            cell("KEEP_TESTED", 15.0, scan),
            cell("KEEP_TWO", 21.0, several),
            cell("STOP", 12.0, stop),
            "}\n",
        ]
    )
