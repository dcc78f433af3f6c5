"""What pyinfra runs before it looks at any host: a run that would touch none of them ends here."""

from deploys.command_line import refuse_mistakes

refuse_mistakes()
