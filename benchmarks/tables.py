"""Reports as Markdown, for people: of inference.py and training_step.py."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def inference_table(report: dict[str, Any]) -> str:
    """All parts of inference.py's report."""
    lines = [facts(report["machine"]), *ceiling_lines(report["ceilings"])]
    for case in report.get("encoder", []):
        lines += ["", *_encoder_case(case, report["ceilings"])]
    for case in report.get("labelling", []):
        lines += ["", *_labelling_case(case)]
    if "memory" in report:
        lines += [
            "",
            "One photograph of 4,000 x 3,000 px, 150 names: peak memory above the model",
            "",
        ]
        lines += ["| engine | MiB |", "|---|---|"]
        lines += [
            f"| {row['variant']} | {row['extra_bytes'] / 2**20:.0f} |"
            if "extra_bytes" in row
            else f"| {row['variant']} | failed |"
            for row in report["memory"]
        ]
    return "\n".join(lines) + "\n"


def training_table(report: dict[str, Any]) -> str:
    """training_step.py's report."""
    lines = [facts(report["machine"]), *ceiling_lines(report["ceilings"])]
    for case in report["cases"]:
        extra = case["cached_step_extra_bytes"] / 2**20
        lines += ["", f"Batch {case['batch']}; a step with cached tokens adds {extra:.0f} MiB", ""]
        lines += [
            "| variant | s per step (quartiles) | images/s | the loss's share |",
            "|---|---|---|---|",
        ]
        for row in case["rows"]:
            if "failed" in row:
                lines += [f"| {row['variant']} | {row['failed']} | | |"]
                continue
            share = f"{row['loss_share']:.0%}" if row["loss_share"] else ""
            rate = f"{row['images_per_s']:.1f}"
            lines += [f"| {row['variant']} | {seconds(row['step_s'])} | {rate} | {share} |"]
    return "\n".join(lines) + "\n"


def facts(machine: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in machine.items())


def ceiling_lines(ceilings: dict[str, dict[str, float]]) -> list[str]:
    rates = [f"{r['matmul_flops'] / 1e9:.0f} GFLOP/s in {d}" for d, r in ceilings.items()]
    copy = ceilings["float32"]["copy_bytes"] / 1e9
    return ["", f"Ceilings in this run: products {', '.join(rates)}; copies {copy:.0f} GB/s."]


def seconds(time: dict[str, float]) -> str:
    return f"{time['median']:.3f} ({time['low']:.3f} to {time['high']:.3f})"


def _encoder_case(case: dict[str, Any], ceilings: dict[str, dict[str, float]]) -> list[str]:
    rows: list[Row] = case["rows"]
    baseline = rows[0]["image_s"]["median"]
    lines = [
        f"ViT-B/16, 224 px, stride {case['stride_px']}, layer {case.get('layer', -1)}, 150 names, "
        f"{case['batch']} images at once, "
        f"{rows[0]['image_s']['rounds']} rounds, {case['labels_per_round']} or more labels in each",
        "",
        "| variant | s per image (quartiles) | x baseline | % of ceiling | equal pixels | "
        "error of tokens |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "failed" in row:
            lines += [f"| {row['variant']} | {row['failed']} | | | | |"]
            continue
        median = row["image_s"]["median"]
        dtype = "bfloat16" if "bf16" in row["variant"] else "float32"
        gflop = case["gflop"] if row is rows[0] else case.get("pacl_gflop", case["gflop"])
        share = gflop * 1e9 / ceilings[dtype]["matmul_flops"] / median
        error = f"{row['token_error']:.1e}" if "token_error" in row else ""
        lines += [
            f"| {row['variant']} | {seconds(row['image_s'])} | {baseline / median:.2f} "
            f"| {100 * share:.0f} | {100 * row['equal_pixels']:.2f} % | {error} |"
        ]
    return lines


def _labelling_case(case: dict[str, Any]) -> list[str]:
    rows: list[Row] = case["rows"]
    naive = {row["variant"]: row["image_s"]["median"] for row in rows}
    lines = [
        f"Upsampling and labelling alone, {case['scores']} scores, 150 names, 32 x 43 to "
        f"512 x 683 px, {rows[0]['image_s']['rounds']} rounds, {case['tied_pixels']} tied pixels "
        "left out",
        "",
        "| variant | s per image (quartiles) | of naive | differing pixels |",
        "|---|---|---|---|",
    ]
    for row, reference in zip(rows, [rows[0], rows[0], rows[2], rows[2]], strict=True):
        ratio = row["image_s"]["median"] / naive[reference["variant"]]
        lines += [
            f"| {row['variant']} | {seconds(row['image_s'])} | {ratio:.2f} "
            f"| {row['differing_pixels']} |"
        ]
    return lines
