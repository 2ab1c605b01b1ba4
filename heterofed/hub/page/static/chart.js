// One small chart. It takes numbers, not options: colours come from the sheet, so light and dark need no reload.
export default {
  template: `
    <figure class="chart" style="margin:0" role="img" :aria-label="spoken">
      <figcaption class="label"><b>{{ title }}</b><span class="muted">{{ latest }}</span></figcaption>
      <div class="canvas" ref="canvas" :style="{height: height + 'px'}"></div>
    </figure>`,
  props: {
    title: String,
    kind: String, // "lines": series of [x, y] points; "bars": series of values, one for each category
    series: Array, // {name, colour, points | values}
    categories: Array,
    latest: String,
    spoken: String,
    unit: String,
    height: { type: Number, default: 168 },
  },
  async mounted() {
    const { echarts } = await import("nicegui-echart"); // large: the page is there before it
    if (!this.$refs.canvas) return; // gone already
    this.chart = echarts.init(this.$refs.canvas, null, { renderer: "canvas" });
    this.sizes = new ResizeObserver(() => this.chart.resize());
    this.sizes.observe(this.$refs.canvas);
    this.looks = new MutationObserver(() => this.draw());
    this.looks.observe(document.body, { attributes: true, attributeFilter: ["class"] });
    this.draw();
  },
  watch: {
    series() {
      this.draw();
    },
    categories() {
      this.draw();
    },
  },
  beforeUnmount() {
    this.sizes?.disconnect();
    this.looks?.disconnect();
    this.chart?.dispose();
  },
  methods: {
    draw() {
      if (!this.chart) return;
      const style = getComputedStyle(document.body);
      const colour = (name) => style.getPropertyValue("--" + name).trim();
      const text = { color: colour("muted"), fontSize: 11 };
      const lines = this.kind === "lines";
      const few = Math.max(0, ...this.series.map((s) => (s.points || []).length)) <= 30;
      const value = {
        type: "value", scale: lines, axisLabel: text, splitNumber: 3,
        splitLine: { lineStyle: { color: colour("line") } },
      };
      const axis = { axisLabel: text, axisLine: { lineStyle: { color: colour("line-strong") } }, axisTick: { show: false } };
      this.chart.setOption(
        {
          animation: false, // a live chart is redrawn each round
          grid: { left: 4, right: 14, top: 10, bottom: 4, containLabel: true },
          tooltip: {
            trigger: "axis", confine: true, backgroundColor: colour("raised"), borderColor: colour("line-strong"),
            textStyle: { color: colour("text"), fontSize: 12 }, axisPointer: { type: lines ? "line" : "shadow" },
            valueFormatter: (v) => (v === null || v === undefined ? "–" : Number(Number(v).toPrecision(5)) + (this.unit || "")),
          },
          xAxis: lines
            ? { type: "value", min: "dataMin", max: "dataMax", minInterval: 1, ...axis, splitLine: { show: false } }
            : { ...value, axisLabel: { ...text, formatter: "{value}" + (this.unit || "") } },
          yAxis: lines ? value : { type: "category", inverse: true, data: this.categories, ...axis },
          series: this.series.map((s, i) =>
            lines
              ? { type: "line", z: 20 - i, name: s.name, data: s.points, showSymbol: few, symbolSize: 5, itemStyle: { color: colour(s.colour) }, lineStyle: { width: 2, color: colour(s.colour) } }
              : { type: "bar", stack: "all", name: s.name, data: s.values, barMaxWidth: 26, itemStyle: { color: colour(s.colour) } },
          ),
        },
        true,
      );
    },
  },
};
