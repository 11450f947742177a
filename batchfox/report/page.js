
"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("data").textContent).charts;
  const drawn = [];
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  function dataset(chart, series) {
    const paint = color(series.color);
    const common = { label: series.name, data: series.values, borderColor: paint, backgroundColor: paint };
    if (chart.kind === "bars") return { ...common, maxBarThickness: 18 };
    const isArea = chart.kind === "area";
    return { ...common, backgroundColor: isArea ? `${paint}99` : paint, fill: isArea ? "stack" : false, borderWidth: 2,
             pointRadius: chart.labels.length < 3 ? 3 : 0, pointHitRadius: 12,
             spanGaps: chart.id === "latency" && !chart.labels.includes("…"), cubicInterpolationMode: "monotone" };
  }

  function options(chart) {
    const [ink, rule] = [color("quiet"), color("rule")];
    const isBars = chart.kind === "bars";
    const values = { beginAtZero: true, stacked: chart.kind === "area", grid: { color: rule }, ticks: { color: ink, maxTicksLimit: 6 } };
    const names = { stacked: chart.kind === "area", grid: { display: false },
                    ticks: { color: ink, maxRotation: 0, autoSkip: !isBars, autoSkipPadding: 14 } };
    return {
      animation: false, responsive: true, maintainAspectRatio: false, indexAxis: isBars ? "y" : "x",
      interaction: { mode: "index", intersect: false, axis: isBars ? "y" : "x" },
      scales: isBars ? { x: values, y: names } : { x: names, y: values },
      plugins: { legend: { display: chart.series.length > 1, labels: { color: ink, boxWidth: 12 } } },
    };
  }

  function draw() {
    while (drawn.length) drawn.pop().destroy();
    for (const chart of charts) {
      const type = chart.kind === "bars" ? "bar" : "line";
      const data = { labels: chart.labels, datasets: chart.series.map((series) => dataset(chart, series)) };
      const canvas = document.getElementById(`chart-${chart.id}`);
      if (chart.kind === "bars") {
        const bars = chart.labels.length * chart.series.length;
        canvas.parentElement.style.height = `${Math.max(7, 3.5 + bars * 1.5)}rem`;
      }
      drawn.push(new Chart(canvas, { type, data, options: options(chart) }));
    }
  }

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
