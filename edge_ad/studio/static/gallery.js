export default {
  template: `
    <div class="gallery" tabindex="0" @keydown="onKey" ref="box">
      <div class="grid">
        <figure v-for="item in items" :key="item.key" :data-key="item.key"
            :class="[item.kind, { here: item.key === here }]" @click="pick(item.key)">
          <img loading="lazy" decoding="async" :src="item.src" :alt="item.name">
          <span v-if="item.flag" class="flag" :title="item.flag">{{ item.short }}</span>
          <figcaption><span :title="item.name">{{ item.name }}</span>
            <span :class="'t-' + item.kind">{{ item.tag }}</span></figcaption>
        </figure>
      </div>
    </div>`,
  props: { items: Array, chosen: String, moving: String },
  emits: ["pick", "act"],
  data() { return { here: this.chosen }; },
  // What is chosen here stays so, whatever the server knew when it sent the items.
  watch: {
    items() { if (!this.items.some((item) => item.key === this.here)) this.here = this.chosen; },
  },
  methods: {
    choose(key) {
      if (this.items.some((item) => item.key === key)) this.pick(key);
    },
    pick(key) {
      this.here = key;
      this.$refs.box.focus({ preventScroll: true });
      this.$emit("pick", { key });
    },
    step(by) {
      const at = this.items.findIndex((item) => item.key === this.here);
      const next = this.items[Math.min(Math.max(at + by, 0), this.items.length - 1)];
      if (!next) return;
      this.pick(next.key);
      const figures = this.$refs.box.querySelectorAll("figure");
      figures[this.items.indexOf(next)]?.scrollIntoView({ block: "nearest" });
    },
    columns() {
      const grid = getComputedStyle(this.$refs.box.firstElementChild);
      return grid.gridTemplateColumns.split(" ").length;
    },
    onKey(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns(), ArrowUp: -this.columns() };
      if (event.key in steps) {
        event.preventDefault();
        this.step(steps[event.key]);
      } else if (/^[a-z]$/i.test(event.key) && this.here && !event.repeat) {
        event.preventDefault();
        const letter = event.key.toLowerCase();
        this.$emit("act", { key: this.here, letter });
        if (this.moving.includes(letter)) this.step(1);
      }
    },
  },
};
