// A table of people's things: rows keep their identity, so an update moves no focus and loses no place.
export default {
  template: `
    <div class="wrap" :class="{tall: dense}" :tabindex="dense ? 0 : null" :role="dense ? 'region' : null" :aria-label="dense ? caption : null">
      <table v-if="rows.length" class="rows" :class="{dense}" :aria-label="caption">
        <thead><tr>
          <th v-for="c in columns" :key="c.key" scope="col" :class="{num: c.kind === 'num'}">
            <span :class="{'visually-hidden': c.kind === 'acts'}">{{ c.label }}</span>
          </th>
        </tr></thead>
        <tbody>
          <tr v-for="row in rows" :key="row.key" :data-key="row.key">
            <td v-for="(c, i) in columns" :key="c.key" :data-label="c.label"
                :class="{num: c.kind === 'num', first: i === 0, acting: c.kind === 'acts', tight: c.tight, none: isNothing(row[c.key])}">
              <a v-if="c.kind === 'link'" class="main" :href="row[c.key].href">{{ row[c.key].text }}</a>
              <template v-else-if="c.kind === 'chip'">
                <span v-if="row[c.key]" class="chip" :class="row[c.key].tone">{{ row[c.key].text }}</span>
              </template>
              <time v-else-if="c.kind === 'time' && row[c.key]" :datetime="row[c.key]" :title="exact(row[c.key])">{{ relative(row[c.key], now) }}</time>
              <time v-else-if="c.kind === 'clock' && row[c.key]" class="muted mono" :datetime="row[c.key]" :title="exact(row[c.key])">{{ clock(row[c.key]) }}</time>
              <span v-else-if="c.kind === 'code'" class="mono">{{ row[c.key] }}</span>
              <div v-else-if="c.kind === 'progress'">
                <template v-if="row[c.key]">
                  <span>{{ row[c.key].text }}</span>
                  <div v-if="row[c.key].part !== null" class="bar" role="progressbar" aria-valuemin="0" aria-valuemax="100"
                       :aria-label="row[c.key].text" :aria-valuenow="Math.round(row[c.key].part * 100)">
                    <i :style="{width: row[c.key].part * 100 + '%'}"></i>
                  </div>
                </template>
              </div>
              <div v-else-if="c.kind === 'acts'" class="acts">
                <template v-for="act in row[c.key] || []" :key="act.name">
                  <a v-if="act.href && !act.why" class="btn small" :href="act.href" :download="act.file || ''" :aria-label="act.aria">{{ act.label }}</a>
                  <button v-else type="button" class="btn small" :class="act.tone" :aria-disabled="act.why ? 'true' : null"
                          :title="act.why || null" :aria-label="act.aria" @click="press(row.key, act)">{{ act.label }}</button>
                  <span v-if="act.why" class="sub">{{ act.why }}</span>
                </template>
              </div>
              <template v-else>
                <div v-if="row[c.key] && row[c.key].text !== undefined">
                  <div>{{ row[c.key].text }}</div><div v-if="row[c.key].sub" class="sub">{{ row[c.key].sub }}</div>
                </div>
                <span v-else>{{ row[c.key] }}</span>
              </template>
            </td>
          </tr>
        </tbody>
      </table>
      <p v-else class="empty">{{ empty }}</p>
    </div>`,
  props: { columns: Array, rows: Array, caption: String, empty: String, dense: Boolean },
  data() {
    return { now: Date.now(), timer: null };
  },
  mounted() {
    this.timer = setInterval(() => (this.now = Date.now()), 10000);
  },
  unmounted() {
    clearInterval(this.timer);
  },
  methods: {
    isNothing(value) {
      return value === null || value === undefined || value === "" || (Array.isArray(value) && !value.length);
    },
    press(key, act) {
      if (!act.why) this.$emit("act", { key, name: act.name });
    },
    exact(iso) {
      return new Date(iso).toLocaleString();
    },
    clock(iso) {
      const at = new Date(iso);
      const time = at.toLocaleTimeString([], { hour12: false });
      return Date.now() - at < 18 * 3600e3 ? time : at.toLocaleDateString() + " " + time;
    },
    relative(iso, now) {
      const s = (new Date(iso) - now) / 1000;
      const units = [["day", 86400], ["hour", 3600], ["minute", 60]];
      const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
      for (const [unit, size] of units) if (Math.abs(s) >= size) return words.format(Math.trunc(s / size), unit);
      return s > 5 ? "in less than a minute" : "just now";
    },
  },
};
