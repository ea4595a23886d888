"""`ketwork ground`: the ground state of a many-body system by variational Monte Carlo (extra `waves`)."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console

from ketwork.cli import options, printing
from ketwork.cli.console import INTERRUPTED, Quiet, UsageError, complain, one_line_errors
from ketwork.cli.console import quiet as is_quiet
from ketwork.cli.files import NUMBERS, PLOT, RECORD, OldPlot, OldSave, out_option, outputs
from ketwork.cli.job import launched
from ketwork.records import write_text
from ketwork.sources import call, parse, resolve

HELP = """Examples:

- `ketwork ground ising --sites 20 --field 1`

- `ketwork ground heisenberg --sites 22 --alpha 2 --out run.safetensors --out run.svg`

- `ketwork ground my_models.py:build --steps 500`
"""


def command(
    system: Annotated[
        str,
        typer.Argument(
            metavar="SYSTEM",
            help="`ising`, `heisenberg`, `j1j2`, `molecule`, `fermi-hubbard`, `t-v`, or `package.module:factory` (or "
            "`file.py:factory`) "
            "returning a `waves.Operator`, or a pair of it and a network.",
        ),
    ],
    sites: Annotated[int, typer.Option(min=1, help="Length of a chain, side of another lattice.")] = 20,
    lattice: Annotated[
        str, typer.Option(help="chain, square, triangular, honeycomb, kagome or cube.", metavar="NAME")
    ] = "chain",
    open_: Annotated[bool, typer.Option("--open", help="Open instead of periodic boundaries.")] = False,
    field: Annotated[float, typer.Option(help="Transverse field of `ising`.")] = 1.0,
    coupling: Annotated[float, typer.Option(help="Coupling of neighbours, J.")] = 1.0,
    j2: Annotated[float, typer.Option("--j2", help="Coupling of second neighbours of `j1j2`.")] = 0.5,
    atoms: Annotated[
        str, typer.Option(help="Atoms of `molecule` and their places in Å.")
    ] = "H 0 0 0; H 0 0 0.7414",
    basis: Annotated[str, typer.Option(help="Basis set of `molecule`.")] = "sto-3g",
    interaction: Annotated[
        float, typer.Option(help="U of `fermi-hubbard`, V of `t-v`; their hopping is --coupling.")
    ] = 4.0,
    model: Annotated[
        str | None,
        typer.Option(
            help="rbm, symmetric, jastrow, dense, masked, transformer, vision, slater or backflow; "
            "for spins rbm unless given, for fermions backflow.",
            metavar="NAME",
        ),
    ] = None,
    alpha: Annotated[int, typer.Option(min=1, help="Scales the size of the network.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = 300,
    samples: Annotated[
        int, typer.Option(min=0, help="Configurations drawn in each step; 0 sums over all of them.")
    ] = 1008,
    seed: Annotated[int, typer.Option(help="Draws the parameters to begin with, and the samples.")] = 0,
    out: Annotated[
        list[Path] | None, out_option(RECORD, PLOT, NUMBERS, what=" The record is saved as the run goes.")
    ] = None,
    save: OldSave = None,
    resume: Annotated[Path | None, typer.Option(metavar="PATH", help="Continue a saved run.")] = None,
    plot: OldPlot = None,
    as_json: printing.Json = False,
    quiet: Quiet = False,
    debug: options.Debug = False,
) -> None:
    """The ground state of a many-body system, with a network as its wave function.

    The energy comes with its standard error, variance and V-score, beside the exact value where it is known. Spins
    are Pauli's: heisenberg is Σ σ·σ, four times Σ S·S, and ising −J Σ ZZ − h Σ X.
    """
    with one_line_errors(debug), launched() as job:
        files = outputs(out, RECORD, PLOT, NUMBERS, save=save, plot=plot)
        save, plot = files.record, files.paths.get(PLOT)
        silent = job is not None and job.rank > 0  # process 0 reports
        waves_command, problems = _waves()
        try:
            if parse(system) is not None:
                of, module = waves_command.problem_of(_made(system))
            else:
                of, module = (
                    problems.problem(
                        system,
                        sites=sites,
                        lattice=lattice,
                        periodic=not open_,
                        field=field,
                        coupling=coupling,
                        j2=j2,
                        atoms=atoms,
                        basis=basis,
                        interaction=interaction,
                    ),
                    None,
                )
            module = module or problems.network(model or of.suits, of, alpha=alpha)
            run = waves_command.ground(
                of,
                module,
                steps=steps,
                n_samples=samples or None,
                seed=seed,
                save=save,
                resume=resume,
                plot=None if silent else plot,
                console=Console(stderr=as_json, soft_wrap=True, quiet=is_quiet() or silent),
                status=Console(stderr=True, soft_wrap=True, quiet=is_quiet() or silent),
                distributed="split" if job else None,
            )
        except (ValueError, FileNotFoundError) as error:
            raise UsageError(str(error)) from error
        except KeyboardInterrupt as error:
            kept = (
                f"The run so far is in {save}; --resume {save} continues it"
                if save
                else "Nothing was kept: no --out with .safetensors"
            )
            complain(f"interrupted. {kept}.")
            raise typer.Exit(INTERRUPTED) from error
        if job:
            job.met = True
        if silent:
            return
        numbers = json.dumps(_numbers(run, of.exact()), indent=1, allow_nan=False)
        if NUMBERS in files.paths:
            write_text(files.paths[NUMBERS], numbers + "\n")
        if as_json:
            print(numbers, flush=True)


def _waves() -> tuple[ModuleType, ModuleType]:
    try:
        from ketwork.cli import ground_run as command
        from ketwork.waves import problems
    except ImportError as error:
        raise UsageError(
            f"`ketwork ground` needs the extra `waves` ({error}). Install it with `pip install 'ketwork[waves]'`."
        ) from error
    return command, problems


def _made(system: str) -> Any:
    factory = parse(system)
    assert factory is not None
    value = resolve(factory, "SYSTEM")
    return call(value, factory.attribute, "SYSTEM") if callable(value) else value


def _numbers(run: Any, exact: float | None) -> dict[str, Any]:
    energy = run.energy
    names = ("value", "stderr", "variance", "tau", "rhat", "vscore")
    numbers = {name: _finite(getattr(energy, name)) for name in names}
    numbers |= {"mean": numbers["value"], "error": numbers["stderr"]}  # as version 0.1 called them
    return {
        "energy": numbers,
        "exact": exact,
        "ended": run.ended,
        "notes": list(run.notes),
        "steps": [float(step.energy) for step in run.history],
    }


def _finite(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None
