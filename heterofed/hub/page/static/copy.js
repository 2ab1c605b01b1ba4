// A text and a button that copies it, also where the browser gives its clipboard to secure pages only.
export default {
  template: `
    <div class="copy" :class="{boxed}">
      <span class="text" ref="text" :tabindex="boxed ? 0 : null" :aria-label="boxed ? what : null">{{ text }}</span>
      <button type="button" class="btn small" :aria-label="'Copy ' + what" @click="copy">{{ said || "Copy" }}</button>
      <span class="visually-hidden" aria-live="polite">{{ said }}</span>
    </div>`,
  props: { text: String, what: String, boxed: Boolean },
  data() {
    return { said: "" };
  },
  methods: {
    async copy() {
      let done = false;
      try {
        await navigator.clipboard.writeText(this.text);
        done = true;
      } catch {
        const area = document.createElement("textarea");
        area.value = this.text;
        area.style.cssText = "position:fixed;opacity:0";
        this.$el.appendChild(area); // inside a dialog the focus may not leave it
        area.select();
        done = document.execCommand("copy");
        area.remove();
      }
      if (!done) getSelection().selectAllChildren(this.$refs.text);
      this.said = done ? "Copied" : "Press Ctrl+C";
      setTimeout(() => (this.said = ""), 2500);
    },
  },
};
